"""What one process, and each of several, computes for tests/training/test_processes.py, in a group or not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

import ssl_adapt  # noqa: F401 (registers the networks)
from ssl_adapt.data import load_image_splits
from ssl_adapt.processes import process_count, process_index, sum_all
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.training.batch_norm import synchronise_batch_norm
from ssl_adapt.training.choice import choose_changes
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.grow import choose_growth, open_branches
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.setting import create_accelerator

STEPS = 2
SGD = ["train.optimizer=sgd", "train.momentum=0.9"]
ADAPTS = ["adapt.theta_lr=1.0", "adapt.none_rule=threshold"]
SMALL = ["data.image_px=8", "model.args={width: 4, layers: [1, 1]}"]
WITHOUT_STATISTICS = [
    "data.image_px=32",
    "model.name=convnext_atto",
    "model.args={depths: [1, 1, 1, 1], dims: [4, 8, 8, 16]}",
]
# Its plain cells never read their input 0, and without skips that change the shape the mixed ones don't either.
CELL_FORM = ["data.image_px=8", "model.name=resnet20_nat", "model.args={channels: 4, cells: 3}"]

JOINT = "adapt.theta_pass=joint"
# The backbone rests in the first step; activations are computed again, and weights averaged.
RESTS = ["train.freeze_epochs=1", "train.ema_decay=0.9", "train.checkpoint_activations=true"]
PARTS = ["train.sync_batchnorm=false", "train.accumulate=2"]
OTHERS = ["objective.projector_hidden=32", "objective.projector_out=16", "adapt.mode=hard", "adapt.anneal_epochs=0"]

# name: recipe arguments, how the 24 images are shared out by two processes
CASES: dict[str, tuple[list[str], tuple[int, int]]] = {
    "simclr": (SMALL, (12, 12)),
    "joint views": ([*SMALL, "objective.view_forward=joint"], (12, 12)),
    "joint pass": ([*SMALL, JOINT], (17, 7)),
    "byol, joint pass": (["recipe=byol_resnet20", *SMALL, *OTHERS, JOINT], (12, 12)),
    "cell": ([*SMALL, "adapt.sharing=cell"], (12, 12)),
    "different lengths": (SMALL, (17, 7)),
    "byol": (["recipe=byol_resnet20", *SMALL, *OTHERS], (12, 12)),
    "vicreg": (["recipe=vicreg_resnet20", *SMALL, *OTHERS], (12, 12)),
    "vicreg, 2 parts": (["recipe=vicreg_resnet20", *SMALL, *OTHERS, *PARTS], (12, 12)),
    "supervised": (["recipe=supervised_resnet20", *SMALL], (12, 12)),
    "frozen, averaged": (["recipe=supervised_resnet20", *SMALL, *RESTS], (12, 12)),
    "adapt=null": ([*SMALL, "adapt=null"], (12, 12)),
    "unread weights, adapt=null": ([*CELL_FORM, "adapt=null"], (12, 12)),
    "unread weights": ([*CELL_FORM, "adapt.shape_change=forbid"], (12, 12)),
    "statistics of each": ([*SMALL, "train.sync_batchnorm=false"], (12, 12)),
    "statistics of each, 2 parts": ([*SMALL, *PARTS], (12, 12)),
    "no statistics": (WITHOUT_STATISTICS, (12, 12)),
    "no statistics, 3 parts": ([*WITHOUT_STATISTICS, "train.accumulate=3"], (17, 7)),
}


def read(arguments: list[str]) -> Recipe:
    adapts = [] if "adapt=null" in arguments else ADAPTS
    base = [] if any(argument.startswith("recipe=") for argument in arguments) else ["recipe=debug"]
    plain = [] if any(argument.startswith("train.optimizer=") for argument in arguments) else SGD
    return load_recipe([*base, *plain, *adapts, *arguments])


def create(arguments: list[str]) -> Learner:
    recipe = read(arguments)
    AcceleratorState._reset_state()
    accelerator = create_accelerator(recipe)
    torch.manual_seed(0)
    objective = create_objective(recipe, load_image_splits("digits", image_px=8).train)
    if recipe.model.name == "convnext_atto":  # no statistics at all: the projector normalises each image by itself
        objective.network.projector[1] = nn.LayerNorm(objective.network.projector[1].num_features)
    return create_learner(recipe, objective, accelerator)


def images(step: int, px: int) -> tuple[Tensor, Tensor]:
    """Two views of 24 images, the first ones much larger and darker than the last."""
    generator = torch.Generator().manual_seed(step)
    base = torch.randn(24, 3, px, px, generator=generator) * torch.linspace(0.2, 3, 24).view(-1, 1, 1, 1)
    base += torch.linspace(-1, 2, 24).view(-1, 1, 1, 1)
    return tuple(base + 0.3 * torch.randn(base.shape, generator=generator) for _ in range(2))


def measure(name: str) -> dict[str, Any]:
    """Gradients of one batch, and theta, architecture and weights after some steps and the fix."""
    arguments, lengths = CASES[name]
    learner = create(arguments)
    px = learner.image_px

    def share(step: int) -> Sequence[Tensor]:
        views = images(step, px)
        if learner.objective.needs_labels:
            views = (views[0], torch.arange(24) % 10)
        if process_count() == 1:
            return views
        return tuple(view.split(lengths)[process_index()] for view in views)

    loss = learner.backward(learner.prepared, share(0))
    found: dict[str, Any] = {
        "processes": process_count(),
        "loss": sum_all(loss) / process_count(),
        "gradients": {n: p.grad.clone() for n, p in learner.network.named_parameters() if p.grad is not None},
    }
    learner.weight_optimizer.zero_grad()
    losses = []
    for step in range(STEPS):
        frozen = step == 0 and learner.train.freeze_epochs > 0
        losses.append(learner.train_weights(share(step), 0.05, 0.5, joint=JOINT in arguments, frozen=frozen))
        if learner.adaptation and JOINT not in arguments:
            losses.append(learner.train_theta(share(step)))
    found["losses"] = torch.tensor(losses)
    if learner.adaptation:
        learner.check_theta()
        found["theta"] = {n: theta.detach().clone() for n, theta in learner.adaptation.theta.items()}
        found["architecture"] = learner.fix().to_dict()
    learner.train_weights(share(STEPS), 0.05, 0.5)
    found["network"] = {n: v.clone() for n, v in learner.network.state_dict().items()}
    if learner.average is not None:
        found["network"] |= {f"average {n}": v for n, v in learner.average.state_dict()["weights"].items()}
    return found


CHOOSING = [
    "data.image_px=8", "model.args={width: 4, layers: [2, 2]}", "adapt.granularity=branch",
    "adapt.score_batches=2", "adapt.rounds=2",
]  # fmt: skip
SCORES = {
    "removal": ["adapt.score=removal", "adapt.budget_macs=0.5"],
    "taylor": ["adapt.score=taylor", "adapt.budget_macs=0.5"],
    "gradmax": ["adapt.score=gradmax", "adapt.start_share=0.4"],
}


def chosen(score: str) -> dict[str, Any]:
    """What two rounds measure and choose, and the weights after them; the views of an image are always the same."""
    arguments = [*CHOOSING, *SCORES[score]]
    learner, data = create(arguments), read(arguments).data
    choose = choose_growth if learner.branches else choose_changes
    learner.objective.make_views = lambda images: [images / 255, images.flip(3) / 255 + 0.1]
    train_set = load_image_splits("digits", image_px=8).train
    stages, scores, changes = Stages(20, 2, 2, 5, rounds=2), [], []
    for step in range(stages.total_steps):
        index = stages.round_chosen_before(step)
        if index is not None:
            choice = choose(learner, data, train_set, stages, 0, index)
            choices = {name: change.choice for change in choice.changes for name in change.edges}
            open_branches(learner, [*choices]) if score == "gradmax" else learner.change(choices)
            scores += [(score.value, score.error) for score in choice.scores]
            changes.append([str(change) for change in choice.changes])
        views = [view.chunk(process_count())[process_index()] for view in images(step, 8)]
        assert learner.train_weights(views, 0.05, 0.5) is not None
        if learner.adaptation and (share := stages.annealed(step)) is not None:
            learner.adaptation.anneal(share)
        if stages.is_fixed_before(step + 1):
            architecture = learner.fix()
    return {
        "scores": torch.tensor(scores).nan_to_num(),
        "changes": changes,
        "architecture": architecture.to_dict(),
        "network": {name: value.clone() for name, value in learner.network.state_dict().items()},
    }


def mean_statistics() -> dict[str, Tensor]:
    """BatchNorm's buffers after three batches, with their mean for a moving average."""
    norm = nn.BatchNorm2d(3, momentum=None)
    if process_count() > 1:
        synchronise_batch_norm(norm, torch.device("cpu"))
    for step in range(3):
        norm(images(step, 4)[0].chunk(process_count())[process_index()])
    return dict(norm.named_buffers())


def agree(folder: Path) -> None:
    """What both passes give: with a loss that is not finite in the last process, with none, with it told to stop."""
    learner, found, is_last = create(SMALL), [], process_index() == process_count() - 1
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    theta = [values.clone() for values in learner.adaptation.theta_parameters()]
    passes = (
        lambda views: learner.train_weights(views, 0.1, 0.5),
        learner.train_theta,
        lambda views: learner.train_weights(views, 0.1, 0.5, joint=True),
    )
    for told, spoilt in ((False, True), (False, False), (True, False)):
        learner.stop_came = lambda told=told: told and is_last
        views = [view[process_index() :: process_count()].clone() for view in images(0, 8)]
        views[0][0, 0, 0, 0] = torch.nan if spoilt and is_last else 0.0
        for train in passes:
            found.append((train(views), learner.must_stop))
        if spoilt:
            assert all(torch.equal(before[name], value) for name, value in learner.network.state_dict().items())
            assert all(map(torch.equal, theta, learner.adaptation.theta_parameters()))
    torch.save(found, folder / f"agreed{process_index()}.pt")


def main(folder: Path) -> None:
    """What this process finds, as files."""
    torch.set_default_dtype(torch.float64)
    found = {name: measure(name) for name in CASES}
    torch.save(mean_statistics(), folder / f"statistics{process_index()}.pt")
    torch.save(found, folder / f"process{process_index()}.pt")
    for score in SCORES:
        torch.save(chosen(score), folder / f"chosen_{score}{process_index()}.pt")
    agree(folder)
