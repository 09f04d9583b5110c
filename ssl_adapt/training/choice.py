"""The choice of what changes, where a measurement or a budget makes it and not theta alone."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, edge_specs, unmixed
from ssl_adapt.adaptation.budget import choose_uniform, choose_within, cost_with, measure_cost, savings
from ssl_adapt.adaptation.removal import Change, Score, possible_changes, ranked, removable_skips, removal_scores
from ssl_adapt.adaptation.taylor import takes_weights, taylor_scores
from ssl_adapt.data import ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.processes import gather_objects, process_count
from ssl_adapt.recipe import AdaptSection, DataSection
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.training.compilation import without_compiling
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.schedules import Stages
from ssl_adapt.training.setting import score_batches
from ssl_adapt.training.sharding import plain_network

KEYS = {"macs": "budget_macs", "parameters": "budget_parameters", "seconds": "budget_latency"}
WORDS = {"macs": "multiply-adds", "parameters": "parameters", "seconds": "time"}
MEASURED = ("removal", "taylor", "gradmax")  # scores of batches
MOST_IMAGES = 8  # of a batch, with which it is seen that a network still tells images apart


@dataclass(frozen=True)
class Choice:
    """What a round changes, and why.

    Attributes:
        changes: in the order of the rule.
        scores: of all changes that were measured; empty for other rules.
        passes: that measured them: forward ones by removal, forward and back by taylor.
        seconds: that it all took.
    """

    changes: Sequence[Change]
    scores: Sequence[Score]
    passes: int
    seconds: float


def choose_changes(
    learner: Learner, data: DataSection, train_set: ImageSet, stages: Stages, seed: int, index: int,
    begin: Begin = show_nothing,
) -> Choice:  # fmt: skip
    """The changes of a round.

    Args:
        learner: its network is left as it was.
        data: how its images are batched.
        train_set: those on which changes are measured.
        stages: how many rounds there are.
        seed: of the run.
        index: of the round, from 0: each brings the network its part of the way to the budget.
        begin: called when the measuring begins.

    Raises:
        ValueError: if the budget can't be met.

    Distributed: collective; the main process chooses for all.
    """
    began = time.perf_counter()
    adapt = learner.adapt
    assert adapt is not None
    way = (index + 1) / stages.rounds
    share = 1 - way + way * adapt.budget[1] if adapt.budget else 1.0  # at its end exactly the budget
    if adapt.budget is not None and gather_objects(_cost_share(learner, data) <= share)[0]:  # nothing is measured then
        return Choice([], [], 0, time.perf_counter() - began)
    batches = views_for_scores(learner, data, train_set, stages, seed, index)
    changes = changes_left(learner)
    scores = measure(learner, changes, batches, begin) if adapt.score in MEASURED else []
    few = next(tensor for tensor in batches[0] if tensor.ndim == 4)[:MOST_IMAGES]
    chosen: list[Change] | UserError
    try:
        if adapt.budget is None:
            network = unmixed(learner.network.backbone)
            helpful = sorted((s for s in scores if s.value + 2 * s.error < 0), key=lambda score: score.value)
            chosen = choose_within(network, [s.change for s in helpful], edge_specs(network), None, few)
        else:
            chosen = _within_budget(learner, data, changes, scores, share, few, seed=seed * stages.rounds + index)
    except UserError as error:
        chosen = error
    chosen = gather_objects(chosen)[0]  # measured times differ, and so may what they lead to
    if isinstance(chosen, UserError):
        raise chosen
    passes = len(batches) * ((1 + len(scores) if adapt.score == "removal" else 1) if scores else 0)
    return Choice(chosen, scores, passes, time.perf_counter() - began)


def check_budget(learner: Learner, data: DataSection) -> None:
    """Refuse a budget that the network does not reach with all that may change: found before it trains.

    Raises:
        ValueError: if so; it says what can be reached.

    Distributed: collective; the main process decides for all.
    """
    adapt = learner.adapt
    if adapt is None or adapt.budget is None or adapt.start_share is not None:  # growing has met its start already
        return
    unit, share = adapt.budget
    network, specs = unmixed(learner.network.backbone), edge_specs(learner.network.backbone)
    images = cost_images(data, learner.accelerator.device)
    few = torch.randn(MOST_IMAGES, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    changes = changes_left(learner)
    saved = savings(network, changes, specs, images, "macs" if unit == "seconds" else unit)
    order = sorted((change for change in changes if saved[change] > 0), key=lambda change: -saved[change])
    cheapest = choose_within(network, order, specs, None, few)
    reached = gather_objects(cost_with(network, cheapest, specs, images, unit) / _plain_cost(learner))[0]
    if reached > share:
        least = math.ceil(1000 * reached) / 1000
        raise UserError(
            f"adapt.{KEYS[unit]}={share:g} can't be met: with all {len(cheapest)} changes that are possible, the "
            f"network keeps {reached:.1%} of its {WORDS[unit]}: set it to {least:g} or more, or try another "
            "adapt.granularity"
        )
    if adapt.score == "uniform":  # has fewer ways to get there
        _within_budget(learner, data, changes, [], share, few, seed=0)


def budget_reached(learner: Learner, data: DataSection) -> dict[str, Any] | None:
    """The budget, and what the network costs now in its unit, as shares of the plain network's cost."""
    if learner.adapt is None or learner.adapt.budget is None:
        return None
    unit, share = learner.adapt.budget
    return {"unit": unit, "share": share, "reached": _cost_share(learner, data)}


def changes_left(learner: Learner) -> list[Change]:
    """All changes that are still possible, in forward order."""
    adapt, specs = learner.adapt, edge_specs(learner.network.backbone)
    assert adapt is not None
    architecture = Architecture.of(unmixed(learner.network.backbone))
    made = architecture.changed.keys()
    changes = [c for c in possible_changes(specs, adapt.shape_change, adapt.sharing) if not made & set(c.edges)]
    if adapt.score == "taylor":
        return [change for change in changes if takes_weights(learner.network.backbone, change)]
    if adapt.score == "theta" or not adapt.none_start:
        return changes
    # Without a budget only skips that were there from the start: it is early for a verdict on what has weights.
    return removable_skips(architecture, specs, adapt.sharing) + (changes if adapt.budget else [])


def views_for_scores(
    learner: Learner, data: DataSection, train_set: ImageSet, stages: Stages, seed: int, index: int
) -> list[list[Tensor]]:
    """Views of the batches on which the changes of a round are measured; torch's random state stays as it was."""
    assert learner.adapt is not None
    count = learner.adapt.score_batches if learner.adapt.score in MEASURED else 1
    state = random_state()
    batches = score_batches(data, train_set, learner.accelerator.device, stages, seed, index, count)
    views = [learner.views(batch) for batch in batches]
    set_random_state(state)
    return views


def measure(
    learner: Learner, changes: Sequence[Change], batches: Sequence[Sequence[Tensor]], begin: Begin = show_nothing
) -> list[Score]:
    """The scores of changes by removal or taylor, in training mode; nothing is left behind."""
    network, objective, adapt = learner.network, learner.objective, learner.adapt
    assert adapt is not None
    passes = len(batches) * (1 if adapt.score == "taylor" else 1 + len(changes))
    advance = begin(f"measuring {len(changes)} changes by {adapt.score}", passes)

    def loss(views: Sequence[Tensor]) -> Tensor:
        advance(1)
        with learner.accelerator.autocast():
            outputs = objective.forward(network, views)
        return objective.loss(outputs)

    def backward(views: Sequence[Tensor]) -> Tensor:
        advance(1)
        return learner.backward(learner.prepared, views)

    modes = {module: module.training for module in network.modules()}
    network.train()
    with without_compiling():
        if adapt.score == "taylor":
            scores = taylor_scores(network.backbone, changes, backward, batches, network=network)
        else:
            scores = removal_scores(
                network.backbone, changes, loss, batches, specs=edge_specs(network.backbone), network=network,
                shape_change=adapt.shape_change,
            )  # fmt: skip
    for module, mode in modes.items():
        module.training = mode
    return scores


def cost_images(data: DataSection, device: torch.device) -> Tensor:
    """Black images, this process's share of a batch, with which costs are measured."""
    return torch.zeros(data.batch_size // process_count(), 3, data.image_px, data.image_px, device=device)


def _within_budget(
    learner: Learner,
    data: DataSection,
    changes: Sequence[Change],
    scores: Sequence[Score],
    share: float,
    few: Tensor,
    *,
    seed: int,
) -> list[Change]:
    """The changes with which the network costs that share of what the plain one does."""
    adapt = learner.adapt
    assert adapt is not None
    assert adapt.budget is not None
    unit, limit = adapt.budget[0], share * _plain_cost(learner)
    network, specs = unmixed(learner.network.backbone), edge_specs(learner.network.backbone)
    images = cost_images(data, learner.accelerator.device)
    values = {score.change: score.value for score in scores} or _theta_values(learner, adapt, changes)
    saved = savings(network, changes, specs, images, unit)
    useful = [change for change in changes if saved[change] > 0 or values.get(change, 0) < 0]

    def fits(model: nn.Module) -> bool:
        return measure_cost(model, images, unit) <= limit

    if adapt.score == "uniform":
        one_each = {change.edges: change for change in reversed(useful)}  # the first of several at an edge
        return choose_uniform(network, [*reversed(one_each.values())], specs, fits, few)
    assert adapt.score != "gradmax"  # for networks that grow
    order = ranked(adapt.score, useful, values=values, saved=saved, seed=seed)
    return choose_within(network, order, specs, fits, few)


def _cost_share(learner: Learner, data: DataSection) -> float:
    """What the network, unmixed, costs now as a share of what the plain one does, in the budget's unit."""
    assert learner.adapt is not None
    assert learner.adapt.budget is not None
    images = cost_images(data, learner.accelerator.device)
    backbone = unmixed(plain_network(learner).backbone)
    return measure_cost(backbone, images, learner.adapt.budget[0]) / _plain_cost(learner)


def _plain_cost(learner: Learner) -> float:
    assert learner.plain_cost is not None
    return learner.plain_cost


def _theta_values(learner: Learner, adapt: AdaptSection, changes: Sequence[Change]) -> dict[Change, float]:
    """How much more theta gives to what is there than to the candidate."""
    if adapt.score != "theta" or learner.adaptation is None:
        return {}
    theta = {state.spec.name: state.theta for state in learner.adaptation.states()}
    places = {"none": 0, "identity": 1}
    return {change: theta[change.edges[0]][2] - theta[change.edges[0]][places[change.choice]] for change in changes}
