"""Scores of changes: what the loss would be with a change really made, and rules that need no measurement."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, chosen_module, replace_module
from ssl_adapt.adaptation.edge import CHOICES, Choice, EdgeSpec, MixedEdge, ShapeChange, Zero
from ssl_adapt.adaptation.sharing import Sharing, group_name
from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.errors import UserError
from ssl_adapt.processes import average

Rule = Literal["removal", "taylor", "theta", "largest", "random", "uniform"]


@dataclass(frozen=True)
class Change:
    """Another candidate at one edge, or at several that change together.

    Attributes:
        edges: their names; one, unless they share theta.
        choice: what they become.
    """

    edges: tuple[str, ...]
    choice: Choice

    def __str__(self) -> str:
        return f"{', '.join(self.edges)} -> {self.choice}"


@dataclass(frozen=True)
class Score:
    """What a change does to the loss.

    Attributes:
        change: the change.
        value: mean over batches: by removal of the loss with it, less the loss without it on the same batch, so that
            below 0 it helps; by `taylor_scores` of sum((w g)^2).
        error: standard error of `value`; NaN for a single batch.
        batches: how many were measured.
    """

    change: Change
    value: float
    error: float
    batches: int


def possible_changes(
    specs: Sequence[EdgeSpec], shape_change: ShapeChange = "forbid", sharing: Sharing = "full"
) -> list[Change]:
    """All changes, in forward order: of single edges, or of those that change together.

    By default none at an edge that changes its tensor's shape: what would stand there is no plausible identity.
    """
    groups: dict[tuple[str, Choice], list[str]] = {}
    for spec in specs:
        for choice in CHOICES:
            stands_in = choice == "identity" or not (spec.changes_shape and shape_change == "forbid")
            if choice not in ("original", spec.kind) and spec.allows(choice, shape_change) and stands_in:
                groups.setdefault((group_name(spec, sharing, shape_change), choice), []).append(spec.name)
    return [Change(tuple(edges), choice) for (_, choice), edges in groups.items()]


def removable_skips(architecture: Architecture, specs: Sequence[EdgeSpec], sharing: Sharing = "full") -> list[Change]:
    """The changes that take skips away again which stand where the plain network has none, in forward order."""
    groups: dict[str, list[str]] = {}
    for spec in specs:
        if spec.kind == "none" and architecture.edges[spec.name] == "identity":
            groups.setdefault(group_name(spec, sharing, "pad"), []).append(spec.name)
    return [Change(tuple(edges), "original") for edges in groups.values()]


@contextmanager
def changed(
    model: nn.Module, specs: Mapping[str, EdgeSpec], change: Change, shape_change: ShapeChange = "pad"
) -> Iterator[None]:
    """A context in which the change is made; afterwards the network has its own modules again.

    Args:
        model: plain, adapted or mixed.
        specs: its edges by name.
        change: what to change.
        shape_change: what an identity is where the shape changes.
    """
    before = {name: model.get_submodule(name) for name in change.edges}
    try:
        make_change(model, specs, change, shape_change)
        yield
    finally:
        for name, module in before.items():
            replace_module(model, name, module)


def make_change(
    model: nn.Module, specs: Mapping[str, EdgeSpec], change: Change, shape_change: ShapeChange = "pad"
) -> None:
    """Put what the change says in place, for good; the arguments are those of `changed`."""
    for name in change.edges:
        module = model.get_submodule(name)
        mixed = module if isinstance(module, MixedEdge) else None
        operation, identity = (mixed.operation, mixed.identity) if mixed else (module, None)
        if change.choice == "original" and specs[name].kind == "none":  # a skip is taken away again
            operation = Zero(specs[name].out_channels, specs[name].stride).train(module.training)
        replace_module(model, name, chosen_module(specs[name], operation, change.choice, shape_change, identity))


@torch.no_grad()
def removal_scores(
    model: nn.Module,
    changes: Sequence[Change],
    loss: Callable[[Sequence[Tensor]], Tensor],
    batches: Sequence[Sequence[Tensor]],
    *,
    specs: Sequence[EdgeSpec],
    network: nn.Module | None = None,
    shape_change: ShapeChange = "pad",
) -> list[Score]:
    """The score of each change, measured with the change made, in the order of `changes`.

    Each batch is taken with and without the change, with the same draws of dropout and the like. BatchNorm normalises
    with the batch where the network is in training mode, and its running statistics rest; nothing is left behind.

    Args:
        model: the network whose edges change.
        changes: what to measure. A forward pass each for every batch, about a third of a step.
        loss: of a batch: a scalar.
        batches: what the loss takes.
        specs: the edges of `model`.
        network: what holds `model` and all else on the way to the loss; None if that is `model` alone.
        shape_change: what an identity is where the shape changes.

    Raises:
        ValueError: if there are no batches.

    Distributed: every process calls it with the same changes and its own share of each batch.
    """
    if not batches:
        raise UserError("batches is empty: a change is measured on one batch at least")
    by_name = {spec.name: spec for spec in specs}
    differences: list[list[float]] = [[] for _ in changes]
    with statistics_at_rest(network or model), torch.random.fork_rng(devices=cuda_devices(model)):
        first_seed = torch.random.initial_seed() % 2**63
        for number, batch in enumerate(batches):
            measured = [_value(loss, batch, first_seed + number)]
            for change in changes:
                with changed(model, by_name, change, shape_change):
                    measured.append(_value(loss, batch, first_seed + number))
            losses = torch.stack(measured).double()
            average([losses])
            for values, difference in zip(differences, (losses[1:] - losses[0]).tolist(), strict=True):
                values.append(difference)
    return [
        Score(change, *mean_with_error(values), len(values))
        for change, values in zip(changes, differences, strict=True)
    ]


def ranked(
    rule: Rule,
    changes: Sequence[Change],
    *,
    values: Mapping[Change, float] | None = None,
    saved: Mapping[Change, float] | None = None,
    seed: int = 0,
) -> list[Change]:
    """The changes in the order in which a rule would make them; one whose value is not a number comes last.

    Args:
        rule: "removal", "taylor" and "theta" take the lowest values first, each value above 0 over what the change
            saves; "largest" takes what saves most first, equal ones in a drawn order; "random" draws the order. For
            "uniform" see `choose_uniform`: there is no order for all budgets.
        changes: in forward order.
        values: of "removal", "taylor" and "theta".
        saved: what a change saves, in any unit; None counts changes.
        seed: of "random" and "largest".
    """
    if rule in ("random", "largest"):
        drawn = random.Random(seed).sample(list(changes), len(changes))
        return sorted(drawn, key=lambda change: -saved[change]) if rule == "largest" and saved is not None else drawn
    if rule == "uniform" or values is None:
        raise UserError(f"there is no order by {rule!r} without values")

    def worth(change: Change) -> float:
        value = values[change]
        weight = saved[change] if saved is not None else 1.0
        if value <= 0:
            return value * max(weight, 0.0)
        return value / weight if value > 0 and weight > 0 else math.inf

    return sorted(changes, key=worth)


def mean_with_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; NaN for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def cuda_devices(model: nn.Module) -> list[torch.device]:
    """The GPUs that have weights of it, whose random state `torch.random.fork_rng` is to keep."""
    return sorted({p.device for p in model.parameters() if p.is_cuda}, key=str)


def _value(loss: Callable[[Sequence[Tensor]], Tensor], batch: Sequence[Tensor], seed: int) -> Tensor:
    torch.manual_seed(seed)
    return loss(batch).detach().float()
