"""Runs that grow: they start with a part of their network, and branches open, zero at first, round by round."""

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, edge_specs, replace_module
from ssl_adapt.adaptation.budget import choose_uniform, evenly, measure_cost
from ssl_adapt.adaptation.growth import Branch, growth_scores, last_layers, opened, zero
from ssl_adapt.adaptation.removal import Change, Score, make_change, possible_changes, ranked
from ssl_adapt.data import ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.processes import gather_objects
from ssl_adapt.recipe import AdaptSection, DataSection
from ssl_adapt.training.choice import MOST_IMAGES, WORDS, Choice, cost_images, views_for_scores
from ssl_adapt.training.compilation import compile_network, without_compiling
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.optimizers import create_weight_optimizer
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.setting import prepare


def set_aside(
    network: Any,
    followers: Sequence[nn.Module],
    adapt: AdaptSection,
    data: DataSection,
    plain_cost: float,
    saved: Architecture | None,
) -> dict[str, Branch]:
    """Take branches out of a fresh network and its followers, evenly over the depth; what was taken, by edge.

    Args:
        network: an objective's, whole, as it was drawn from the run's seed.
        followers: the backbones that adapt as its own does.
        adapt: its `start_share` says how much of the budget's unit is left.
        data: size of the images.
        plain_cost: of the whole network.
        saved: what a run that goes on has grown to; None at the start.

    Raises:
        ValueError: if too little can be taken out.

    Distributed: collective; the main process decides for all.
    """
    assert adapt.budget is not None
    assert adapt.start_share is not None
    backbone, unit, limit = network.backbone, adapt.budget[0], adapt.start_share * plain_cost
    specs = edge_specs(backbone)
    images = cost_images(data, next(backbone.parameters()).device)
    few = torch.randn(MOST_IMAGES, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    layers = last_layers(backbone, possible_changes(specs), few)
    if saved is not None:
        taken = [change for change in layers if change.edges[0] in saved.changed]
    else:
        try:
            chosen = choose_uniform(backbone, [*layers], specs, lambda m: measure_cost(m, images, unit) <= limit, few)
        except UserError:
            raise UserError(
                f"adapt.start_share={adapt.start_share:g} can't be met: {len(layers)} branches can open at zero, and "
                f"without them the network has more of its {WORDS[unit]}: raise it, or try adapt.granularity=branch"
            ) from None
        taken = gather_objects(chosen)[0]
    branches = {}
    for change in taken:
        (name,) = change.edges
        branches[name] = Branch(backbone.get_submodule(name), layers[change])
        zero(branches[name].operation.get_submodule(layers[change]))
        for other in (backbone, *followers):
            make_change(other, {spec.name: spec for spec in specs}, change)
    return branches


def choose_growth(
    learner: Learner, data: DataSection, train_set: ImageSet, stages: Stages, seed: int, index: int,
    begin: Begin = show_nothing,
) -> Choice:  # fmt: skip
    """The branches that a round opens: as many as fit into its part of the way to the budget.

    Args:
        learner: its network is left as it was.
        data: how its images are batched.
        train_set: those on which branches are measured.
        stages: how many rounds there are.
        seed: of the run.
        index: of the round, from 0.
        begin: called when the measuring begins.

    Distributed: collective; the main process chooses for all.
    """
    began = time.perf_counter()
    adapt = learner.adapt
    assert adapt is not None
    assert adapt.budget is not None
    assert adapt.start_share is not None
    assert learner.plain_cost is not None
    backbone, branches, unit = learner.network.backbone, learner.branches, adapt.budget[0]
    way = (index + 1) / stages.rounds
    share = (1 - way) * adapt.start_share + way * adapt.budget[1]  # at its end exactly the budget
    limit, images = share * learner.plain_cost, cost_images(data, learner.accelerator.device)

    def cost(names: Sequence[str]) -> float:
        with opened(backbone, {name: branches[name] for name in names}):
            return measure_cost(backbone, images, unit)

    scores: list[Score] = []
    if adapt.score == "gradmax" and branches:
        batches = views_for_scores(learner, data, train_set, stages, seed, index)
        begin(f"measuring {len(branches)} branches", None)
        scores = measure_growth(learner, batches)
    left = [spec.name for spec in edge_specs(backbone) if spec.name in branches]
    taken: list[str] = []
    if adapt.score == "uniform":
        spread = (evenly(left, count) for count in range(len(left), 0, -1))
        taken = next((names for names in spread if cost(names) <= limit), [])
    else:
        for name in _order(adapt, left, scores, cost, seed=seed * stages.rounds + index):
            if cost([*taken, name]) <= limit:
                taken.append(name)
    chosen = gather_objects(taken)[0]  # measured times differ, and so may what they lead to
    passes = scores[0].batches if scores else 0
    return Choice([Change((name,), "original") for name in chosen], scores, passes, time.perf_counter() - began)


def measure_growth(learner: Learner, batches: Sequence[Sequence[Tensor]]) -> list[Score]:
    """The squared gradient of each branch that is not there yet, in training mode; nothing is left behind."""
    network = learner.network
    modes = {module: module.training for module in network.modules()}
    network.train()
    with without_compiling():
        scores = growth_scores(
            network.backbone, learner.branches, lambda views: learner.backward(network, views), batches, network=network
        )
    for module, mode in modes.items():
        module.training = mode
    return scores


def open_branches(learner: Learner, names: Sequence[str]) -> None:
    """Make branches part of the network and its followers; what trains already keeps its optimiser's state."""
    backbone = learner.network.backbone
    for name in names:
        operation = learner.branches.pop(name).operation
        for network in learner.followers:
            copy = deepcopy(operation).requires_grad_(False)
            replace_module(network, name, copy.train(network.get_submodule(name).training))
        replace_module(backbone, name, operation.train(backbone.get_submodule(name).training))
    old = learner.weight_optimizer
    optimizer = create_weight_optimizer(learner.network, learner.train, learner.accelerator.device, learner.layer_rates)
    optimizer.state.update(old.state)
    for group in optimizer.param_groups:  # some optimisers count their steps there
        for before in old.param_groups:
            if all(before[key] == group[key] for key in ("lr_scale", "weight_decay")):
                group.update({key: value for key, value in before.items() if key != "params"})
    learner.prepared = learner.network
    learner.accelerator.free_memory()
    learner.prepared, learner.weight_optimizer = prepare(
        learner.accelerator, learner.network, optimizer, learner.image_px
    )
    if learner.train.compile:
        compile_network(learner.network)


def _order(adapt: AdaptSection, left: Sequence[str], scores: Sequence[Score], cost: Any, *, seed: int) -> list[str]:
    """The most gradient for each unit of cost first, or a random order."""
    if adapt.score == "random":
        return [
            change.edges[0] for change in ranked("random", [Change((name,), "original") for name in left], seed=seed)
        ]
    now = cost([])
    values: Mapping[str, float] = {score.change.edges[0]: score.value for score in scores}
    return sorted(left, key=lambda name: -values[name] / max(cost([name]) - now, 1e-12))
