"""Table 5: ways to make a network cheaper, from a trained start and from scratch.

Each arm ends with a network that costs at most a share of the plain one's multiply-adds, and is trained for as many
epochs after the cut.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from reproduction.change_scores import loss_of
from reproduction.distillation import Distilled
from reproduction.shrink_networks import REMOVED, START, create_recipe, declare_branches
from reproduction.shrink_options import ShrinkOptions
from reproduction.weight_training import Views, iterate_views, train_weights
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture, edge_specs, unmixed
from ssl_adapt.adaptation.budget import choose_uniform, choose_within, measure_cost, savings
from ssl_adapt.adaptation.removal import Change, make_change, possible_changes, ranked, removal_scores
from ssl_adapt.adaptation.taylor import taylor_scores
from ssl_adapt.backbones.fit_weights import fit_weights
from ssl_adapt.export.read_weights import read_weights
from ssl_adapt.objectives import Objective
from ssl_adapt.training.measurements import create_monitor
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.setting import load_splits

SCORE_BATCHES = 16


@dataclass(frozen=True)
class Row:
    """One finished arm.

    Attributes:
        seconds: of training and measuring after the start.
        share: multiply-adds over the plain network's.
    """

    network: str
    seed: int
    arm: str
    draw: int
    budget: float
    accuracy: float
    share: float
    parameters: int
    seconds: float
    cut: list[str]
    commit: str


class Study:
    """The runs of one network and seed.

    Args:
        network: a key of `NETWORKS`.
        seed: of weights, order and views.
        options: epochs and where things are.
        folder: keeps the trained start.
        commit: of the code.
    """

    def __init__(self, network: str, seed: int, options: ShrinkOptions, folder: Path, commit: str) -> None:
        self.network, self.seed, self.options = network, seed, options
        self.folder, self.commit = folder, commit
        self.recipe = create_recipe(network, seed, options.root, options.images)
        self.train_set, test_set = load_splits(self.recipe.data)
        self.tail_lr = options.tail_lr_share * self.recipe.train.lr
        steps = len(self.train_set) // self.recipe.data.batch_size
        self.steps_per_epoch = steps
        stages = Stages(steps, 0, 0, steps)
        self.monitor = create_monitor(
            self.recipe.data, self.recipe.knn, self.train_set, test_set, stages, seed, torch.device("cpu")
        )
        px = self.recipe.data.image_px
        self.images = torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(0))
        self.plain_macs = self._macs(self.objective().network.backbone)

    def objective(self) -> Objective:
        """A fresh plain network with its objective, the same for every arm of the seed."""
        torch.manual_seed(self.seed)
        objective = create_objective(self.recipe, self.train_set)
        declare_branches(self.network, objective.network.backbone, self.recipe.model.args)
        return objective

    def start(self) -> Objective:
        """The trained start, made once."""
        objective = self.objective()
        path = self.folder / f"start_{START[self.network]}_{self.seed}.pt"
        if path.exists():
            objective.network.load_state_dict(torch.load(path, weights_only=True))
        else:
            if self.options.weights is not None:
                backbone = objective.network.backbone
                fitted = fit_weights(backbone, read_weights(Path(self.options.weights)), new_classifier=True)
                backbone.load_state_dict(fitted.tensors, strict=False)
            self.train(objective, epochs=self.options.start_epochs, lr=self.recipe.train.lr)
            torch.save(objective.network.state_dict(), path)
        return objective

    def train(
        self,
        objective: Objective,
        *,
        epochs: float,
        lr: float,
        first_epoch: int = 0,
        before_step: Callable[[int, Views], None] | None = None,
        after_step: Callable[[int, Views], None] | None = None,
    ) -> None:
        """Train all weights; warm-up for half an epoch, then a cosine down to 0."""
        total = round(epochs * self.steps_per_epoch)
        train_weights(
            objective, self._views(objective, total, first_epoch), self.recipe.train, steps=total, lr=lr,
            warmup_steps=self.steps_per_epoch // 2, before_step=before_step, after_step=after_step,
        )  # fmt: skip

    def run(self, arm: str, budget: float, draw: int) -> Row:
        """Train one arm and measure it."""
        tail = self.options.tail_epochs
        objective = self.objective() if arm.startswith("scratch") else self.start()
        began = time.perf_counter()
        if arm.startswith("scratch"):
            if arm == "scratch_found":
                found = self.start()
                self.cut(found, "removal", budget)
                apply_architecture(objective.network.backbone, Architecture.of(found.network.backbone))
            else:
                self.cut(objective, "uniform", budget, draw)
            epochs = tail if arm == "scratch_tail" else tail + self.options.start_epochs
            self.train(objective, epochs=epochs, lr=self.recipe.train.lr)
        elif arm == "progressive":
            self.train_progressive(objective, budget)
        elif arm == "theta":
            self.train_theta(objective, budget)
        else:
            if arm != "original":
                self.cut(objective, "removal" if arm == "distilled" else arm, budget, draw)
            learner = Distilled(objective, self.start().network) if arm == "distilled" else objective
            self.train(learner, epochs=tail, lr=self.tail_lr, first_epoch=100)
        seconds = time.perf_counter() - began
        backbone = objective.network.backbone
        score = self.monitor.evaluate(backbone).score
        assert score is not None
        return Row(
            self.network, self.seed, arm, draw, budget, round(100 * score.top1, 2),
            round(self._macs(backbone) / self.plain_macs, 4), sum(p.numel() for p in backbone.parameters()),
            round(seconds, 1), [*Architecture.of(backbone).changed], self.commit,
        )  # fmt: skip

    def cut(
        self,
        objective: Objective,
        rule: str,
        budget: float,
        draw: int = 0,
        values: Mapping[Change, float] | None = None,
    ) -> None:
        """Make changes until the budget is met, in the order of a rule."""
        backbone = objective.network.backbone
        specs, changes = edge_specs(backbone), self._changes(backbone)
        if rule == "greedy":
            self.cut_greedily(objective, budget)
            return
        if rule == "uniform":
            chosen = choose_uniform(backbone, changes, specs, self._fit(budget), self.images)
        else:
            if rule == "random":
                order = ranked("random", changes, seed=1000 * self.seed + draw)
            elif rule == "largest":
                order = ranked("largest", changes, saved=self._saved(backbone, changes), seed=1000 * self.seed + draw)
            elif rule == "theta":
                order = ranked("theta", changes, values=values)
            else:
                values = self._scores(objective, changes, SCORE_BATCHES, rule)
                order = ranked("removal", changes, values=values, saved=self._saved(backbone, changes))
            chosen = choose_within(backbone, order, specs, self._fit(budget), self.images)
        for change in chosen:
            self._make(backbone, change)

    def cut_greedily(self, objective: Objective, budget: float) -> None:
        """Make the change that hurts least for what it saves, measure the others anew, and so on, without training."""
        backbone, fits = objective.network.backbone, self._fit(budget)
        while not fits(backbone):
            changes = self._changes(backbone)
            scores = self._scores(objective, changes, SCORE_BATCHES // 2)
            self._make(backbone, ranked("removal", changes, values=scores, saved=self._saved(backbone, changes))[0])

    def train_progressive(self, objective: Objective, budget: float) -> None:
        """Cut one edge at a time, evenly over the first half of the epochs, each measured anew."""
        backbone = objective.network.backbone
        specs, changes, fits = edge_specs(backbone), self._changes(backbone), self._fit(budget)
        count = len(choose_uniform(backbone, changes, specs, self._fit(budget), self.images))
        half = round(self.options.tail_epochs * self.steps_per_epoch / 2)
        due = {index * half // count for index in range(count)}

        def cut_one(step: int, _: Views) -> None:
            if (step in due or step == half) and not fits(backbone):
                changes = self._changes(backbone)
                scores = self._scores(objective, changes, SCORE_BATCHES // 2)
                order = ranked("removal", changes, values=scores, saved=self._saved(backbone, changes))
                for change in order[:1] if step in due else order:
                    if not fits(backbone):
                        self._make(backbone, change)

        self.train(
            objective, epochs=self.options.tail_epochs, lr=self.tail_lr, first_epoch=100,
            before_step=cut_one,
        )  # fmt: skip

    def train_theta(self, objective: Objective, budget: float) -> None:
        """One of the epochs as the paper has it, weights and theta by turns; then the cut that theta says."""
        network = objective.network
        adaptation = Adaptation(network.backbone, shape_change="forbid")
        optimizer = torch.optim.Adam(adaptation.theta_parameters(), self.options.theta_lr, betas=(0.5, 0.999))

        def train_theta(_: int, views: Views) -> None:
            with adaptation.architecture_pass(network):
                loss_of(objective, views).backward()
            optimizer.step()
            optimizer.zero_grad()

        tail, lr = self.options.tail_epochs, self.tail_lr
        self.train(objective, epochs=1, lr=lr, first_epoch=100, after_step=train_theta)
        theta = {state.spec.name: state.theta for state in adaptation.states()}
        network.backbone = unmixed(network.backbone)
        changes = self._changes(network.backbone)
        values = {
            change: theta[change.edges[0]][2] - theta[change.edges[0]][1 if change.choice == "identity" else 0]
            for change in changes
        }
        self.cut(objective, "theta", budget, values=values)
        self.train(objective, epochs=tail - 1, lr=lr, first_epoch=101)

    def _scores(
        self, objective: Objective, changes: Sequence[Change], batches: int, rule: str = "removal"
    ) -> dict[Change, float]:
        network = objective.network
        network.train()
        views = list(self._views(objective, batches, 200))
        if rule == "taylor":
            scores = taylor_scores(
                network.backbone, changes, lambda v: loss_of(objective, v).backward(), views, network=network
            )
        else:
            scores = removal_scores(
                network.backbone, changes, lambda v: loss_of(objective, v), views,
                specs=edge_specs(network.backbone), network=network,
            )  # fmt: skip
        return {score.change: score.value for score in scores}

    def _changes(self, backbone: nn.Module) -> list[Change]:
        made = Architecture.of(backbone).changed
        return [
            c
            for c in possible_changes(edge_specs(backbone))
            if c.edges[0] not in made and c.choice == REMOVED[self.network]
        ]

    def _saved(self, backbone: nn.Module, changes: Sequence[Change]) -> dict[Change, float]:
        px = self.recipe.data.image_px
        return savings(backbone, changes, edge_specs(backbone), torch.zeros(1, 3, px, px), "macs")

    def _make(self, backbone: nn.Module, change: Change) -> None:
        make_change(backbone, {spec.name: spec for spec in edge_specs(backbone)}, change)

    def _macs(self, backbone: nn.Module) -> float:
        px = self.recipe.data.image_px
        return measure_cost(backbone, torch.zeros(1, 3, px, px), "macs")

    def _fit(self, budget: float) -> Callable[[nn.Module], bool]:
        return lambda backbone: self._macs(backbone) <= budget * self.plain_macs

    def _views(self, objective: Objective, steps: int, first_epoch: int) -> Iterator[Views]:
        size = self.recipe.data.batch_size
        return iterate_views(
            objective, self.train_set, batch_size=size, steps=steps, seed=self.seed, first_epoch=first_epoch
        )
