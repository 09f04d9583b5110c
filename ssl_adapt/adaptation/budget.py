"""Budgets: what a network may cost, and the changes that bring it there."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.adaptation.score import Change, changed
from ssl_adapt.errors import UserError

Unit = Literal["macs", "parameters", "seconds"]


@dataclass(frozen=True)
class Budget:
    """A share of what the plain network costs.

    Attributes:
        unit: multiply-adds of one image, parameters, or seconds that the device takes for a forward pass.
        share: above 0 and at most 1.
    """

    unit: Unit
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"a budget of {self.share}: give a share of the plain network's {self.unit}, above 0 to 1")


def measure_cost(model: nn.Module, images: Tensor, unit: Unit) -> float:
    """What one forward pass in eval mode costs: for "macs" that of the first image, for "seconds" that of all.

    Seconds are a median of ten passes after two.
    """
    if unit == "parameters":
        return count_parameters(model)
    if unit == "macs":
        return count_macs(model, images[:1])
    copy = deepcopy(model).eval()
    with torch.no_grad():
        return median([_seconds(copy, images) for _ in range(12)][2:])


def savings(
    model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec], images: Tensor, unit: Unit
) -> dict[Change, float]:
    """What each change alone saves, by counting or timing the network without and with it."""
    by_name = {spec.name: spec for spec in specs}
    whole = measure_cost(model, images, unit)
    saved = {}
    for change in changes:
        with changed(model, by_name, change):
            saved[change] = whole - measure_cost(model, images, unit)
    return saved


def choose_within(
    model: nn.Module,
    order: Sequence[Change],
    specs: Sequence[EdgeSpec],
    fits: Callable[[nn.Module], bool],
) -> list[Change]:
    """The first changes of `order` with which the network fits, less those without which it fits as well.

    Args:
        model: the network; it is left as it was.
        order: the changes, the best first. Of several at one edge the first counts.
        specs: its edges.
        fits: whether the network, with changes made, is cheap enough.

    Raises:
        ValueError: if it does not fit with all of them.
    """
    taken: list[Change] = []
    for change in order:
        if _fits(model, taken, specs, fits):
            break
        if not {name for other in taken for name in other.edges} & set(change.edges):
            taken.append(change)
    if not _fits(model, taken, specs, fits):
        raise UserError(f"the budget can't be met: {len(taken)} changes are possible, and all of them save too little")
    for change in reversed(taken[:-1]):
        rest = [other for other in taken if other != change]
        if _fits(model, rest, specs, fits):
            taken = rest
    return taken


def choose_uniform(
    model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec], fits: Callable[[nn.Module], bool]
) -> list[Change]:
    """The fewest changes, spread evenly over the depth, with which the network fits.

    Args:
        model: see `choose_within`, as for `specs` and `fits`.
        changes: in forward order, one at each edge.

    Raises:
        ValueError: if it does not fit with all of them.
    """
    total = len(changes)
    for count in range(total + 1):
        taken = [changes[(2 * index + 1) * total // (2 * count)] for index in range(count)]
        if _fits(model, taken, specs, fits):
            return taken
    raise UserError(f"the budget can't be met: {total} changes are possible, and all of them save too little")


def _fits(
    model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec], fits: Callable[[nn.Module], bool]
) -> bool:
    by_name: Mapping[str, EdgeSpec] = {spec.name: spec for spec in specs}
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(changed(model, by_name, change))
        return fits(model)


def _seconds(model: nn.Module, images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    start = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
