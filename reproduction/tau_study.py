"""Whether a score ranks changes as an oracle does: python -m reproduction.tau_study.

The oracle of a change makes it, trains the weights on for some steps, and takes the loss of images that were never
trained on. Rows go to FOLDER/rows.jsonl; a second call goes on where the first one ended.
`python -m reproduction.tau_summary FOLDER` writes the table; results/tau.md has the plan and what came out.
"""

import argparse
import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from reproduction.change_scores import loss_of, theta_scores, weight_scores, with_change
from reproduction.weight_training import Views, iterate_views, train_weights
from ssl_adapt.adaptation.architecture import edge_specs
from ssl_adapt.adaptation.budget import savings
from ssl_adapt.adaptation.removal import Change, possible_changes, removal_scores
from ssl_adapt.backbones.adaptable import adaptable
from ssl_adapt.data import ImageSet
from ssl_adapt.objectives import Objective
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import load_splits

LABELS = {
    "train.optimizer": "adamw", "train.momentum": None, "train.weight_decay": 0.05, "train.clip_grad_norm": 1.0,
    "views.pad_px": 2,
}  # fmt: skip
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("simclr_resnet20", {
        "model.name": "resnet20_bottleneck", "model.args": {"layers": [3, 4, 4], "width": 6},
    }),
    "vit": ("supervised_resnet20", {
        "model.name": "vit_tiny_patch16_224",
        "model.args": {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 12, "num_heads": 3}, **LABELS,
    }),
    "convnext": ("supervised_resnet20", {
        "model.name": "convnext_atto", **LABELS,
        "model.args": {
            "patch_size": 1, "depths": [3, 3, 9, 3], "dims": [16, 24, 32, 48], "kernel_sizes": 3, "ls_init_value": 0.1,
        },
    }),
}  # fmt: skip
GROUPS = {"resnet": ("branches", "operations", "none edges"), "vit": ("branches",), "convnext": ("branches",)}
SCORE_EPOCH, ORACLE_EPOCHS, HELD_OUT_EPOCH = 200, (300, 400), 500  # whose order and views are drawn


@dataclass(frozen=True)
class Row:
    """What the scores and the oracle say of the changes of one group in one network.

    Attributes:
        epochs: of training before.
        steps: of the oracle.
        lr: of the oracle, constant.
        oracle: for each change the held-out loss after it, less `unchanged`, of each repeat.
        unchanged: held-out loss of the network without a change after as many steps, of each repeat.
        before: held-out loss as it was.
        scores: for each score a value for each change; high where the change should hurt.
    """

    network: str
    seed: int
    epochs: int
    group: str
    steps: int
    lr: float
    changes: list[str]
    oracle: list[list[float]]
    unchanged: list[float]
    before: float
    scores: dict[str, list[float]]
    seconds: float
    commit: str


class Study:
    """One network with one seed: its training, the oracle, and the scores.

    Args:
        recipe: network, objective, views and optimiser; `adapt` is not used.
        images: how many to train on. As many as `data.train_images` has more are held out.
    """

    def __init__(self, recipe: Recipe, images: int) -> None:
        self.recipe = recipe
        whole, _ = load_splits(recipe.data)
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        self.train_set, self.held_out = whole.subset(order[:images]), whole.subset(order[images:])
        self.steps_per_epoch = images // recipe.data.batch_size

    def objective(self, group: str) -> Objective:
        """The untrained network with the edges of a group; all groups have the same weights."""
        torch.manual_seed(self.recipe.seed)
        recipe, is_ours = self.recipe, self.recipe.model.name.startswith("resnet")
        if is_ours and group == "branches":
            model = recipe.model.model_copy(update={"args": {**recipe.model.args, "granularity": "branch"}})
            recipe = recipe.model_copy(update={"model": model})
        objective = create_objective(recipe, self.train_set)
        if not is_ours:
            adaptable(objective.network.backbone, granularity="branch", model_args=recipe.model.args)
        return objective

    def start(self, group: str, arguments: argparse.Namespace) -> Objective:
        """The network after its training, made once: half an epoch of warm-up, then a cosine down to 0."""
        objective, epochs, seed = self.objective(group), arguments.epochs, self.recipe.seed
        path = Path(arguments.folder) / f"start_{arguments.network}_{seed}_{epochs}.pt"
        if path.exists():
            objective.network.load_state_dict(torch.load(path, weights_only=True))
        elif epochs:
            steps, train = epochs * self.steps_per_epoch, self.recipe.train
            views = self._views(objective, self.train_set, steps, 0)
            train_weights(objective, views, train, steps=steps, lr=train.lr, warmup_steps=self.steps_per_epoch // 2)
            torch.save(objective.network.state_dict(), path)
        return objective

    def held_out_loss(self, objective: Objective) -> float:
        """The mean loss of the held-out images in eval mode, on the same views each time."""
        steps = len(self.held_out) // self.recipe.data.batch_size
        batches = list(self._views(objective, self.held_out, steps, HELD_OUT_EPOCH))
        objective.network.eval()
        with torch.no_grad():
            return sum(float(loss_of(objective, views)) for views in batches) / steps

    def oracle(
        self, objective: Objective, changes: Sequence[Change | None], steps: int, lr: float
    ) -> list[list[float]]:
        """For each change (None: no change) the held-out loss after `steps` with it; of each repeat."""
        losses: list[list[float]] = [[] for _ in changes]
        for epoch in ORACLE_EPOCHS:
            batches = list(self._views(objective, self.train_set, steps, epoch))
            for change, found in zip(changes, losses, strict=True):
                other = with_change(objective, change)
                train_weights(other, batches, self.recipe.train, steps=steps, lr=lr, schedule="constant")
                found.append(self.held_out_loss(other))
        return losses

    def scores(self, objective: Objective, changes: Sequence[Change], batches: int) -> dict[str, list[float]]:
        """All scores by name, on the same batches with BatchNorm at rest; those of weights where there are any."""
        network = objective.network.train()
        specs, px = edge_specs(network.backbone), self.recipe.data.image_px
        views = list(self._views(objective, self.train_set, batches, SCORE_EPOCH))
        removal = removal_scores(
            network.backbone, changes, lambda v: loss_of(objective, v), views, specs=specs, network=network
        )
        found = {"removal": [score.value for score in removal], "theta": theta_scores(objective, changes, views)}
        if all(spec.kind == "operation" for spec in specs if any(spec.name in change.edges for change in changes)):
            found |= weight_scores(objective, changes, views)
            saved = savings(network.backbone, changes, specs, torch.zeros(1, 3, px, px), "macs")
            found["multiply-adds"] = [saved[change] for change in changes]
        return found

    def measure(self, group: str, arguments: argparse.Namespace) -> Row:
        """The row of a group, from the network as it is after training."""
        began, seed = time.perf_counter(), self.recipe.seed
        objective, lr = self.start(group, arguments), arguments.lr_share * self.recipe.train.lr
        changes = group_changes(objective, group, arguments.most)
        before = self.held_out_loss(objective)
        scores = self.scores(objective, changes, arguments.batches)
        unchanged, *losses = self.oracle(objective, [None, *changes], arguments.steps, lr)
        rises = [[loss - plain for loss, plain in zip(found, unchanged, strict=True)] for found in losses]
        return Row(
            arguments.network, seed, arguments.epochs, group, arguments.steps, lr, [str(change) for change in changes],
            rises, unchanged, before, scores, round(time.perf_counter() - began, 1), arguments.commit,
        )  # fmt: skip

    def _views(self, objective: Objective, images: ImageSet, steps: int, first_epoch: int) -> Iterator[Views]:
        seed, size = self.recipe.seed, self.recipe.data.batch_size
        return iterate_views(objective, images, batch_size=size, steps=steps, seed=seed, first_epoch=first_epoch)


def group_changes(objective: Objective, group: str, most: int) -> list[Change]:
    """At most so many changes of a group, drawn once for all seeds, in forward order.

    Operations and none edges become the identity, which is `Pad` where the shape changes.
    """
    specs = {spec.name: spec for spec in edge_specs(objective.network.backbone)}
    changes = [
        change
        for change in possible_changes([*specs.values()], "pad")
        if (specs[change.edges[0]].kind == "none") == (group == "none edges")
        and (change.choice == "identity" or group == "branches")
    ]
    drawn = random.Random(0).sample(range(len(changes)), min(most, len(changes)))
    return [changes[index] for index in sorted(drawn)]


def create_recipe(network: str, seed: int, arguments: argparse.Namespace) -> Recipe:
    """The recipe of one of the networks, at the size that the arguments say."""
    name, values = NETWORKS[network]
    shared = {
        "seed": seed, "data.name": arguments.data, "data.root": arguments.root, "data.image_px": arguments.image_px,
        "data.batch_size": 64, "data.train_images": arguments.images + arguments.held_out, "train.lr": 1e-3,
        "adapt": None,
    }  # fmt: skip
    return load_recipe(name, {**shared, **values})


def main(given: Sequence[str] | None = None) -> None:
    """Measure all groups that are not in the folder yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="tar or folder of the images")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--image-px", type=int, default=16)
    parser.add_argument("--folder", default="runs/tau_study")
    parser.add_argument("--network", choices=NETWORKS, default="resnet")
    parser.add_argument("--groups", nargs="+", help="by default all of the network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--images", type=int, default=10_000, help="to train on")
    parser.add_argument("--held-out", type=int, default=1024, help="images that are never trained on")
    parser.add_argument("--epochs", type=int, default=8, help="before anything is measured; 0: an untrained network")
    parser.add_argument("--steps", type=int, default=50, help="of the oracle")
    parser.add_argument("--lr-share", type=float, default=0.2, help="of the oracle, over the highest of the training")
    parser.add_argument("--batches", type=int, default=16, help="of the scores")
    parser.add_argument("--most", type=int, default=20, help="changes of a group")
    arguments = parser.parse_args(given)
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    arguments.commit = head.stdout.strip() or "unknown"
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, keys = folder / "rows.jsonl", ("network", "seed", "epochs", "group", "steps")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {tuple(row[key] for key in keys) for row in map(json.loads, lines)}
    for seed in arguments.seeds:
        study = Study(create_recipe(arguments.network, seed, arguments), arguments.images)
        for group in arguments.groups or GROUPS[arguments.network]:
            if (arguments.network, seed, arguments.epochs, group, arguments.steps) not in done:
                row = json.dumps(asdict(study.measure(group, arguments)))
                with path.open("a", encoding="utf-8") as file:
                    file.write(row + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
