"""Budgets: what a network may cost, and the changes that bring it there."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.adaptation.removal import Change, changed
from ssl_adapt.errors import UserError

_OUT_OF_REACH = "the budget can't be met: {} changes are possible, and all of them together save too little"

Unit = Literal["macs", "parameters", "seconds"]
Item = TypeVar("Item")


def measure_cost(model: nn.Module, images: Tensor, unit: Unit) -> float:
    """What one forward pass in eval mode costs: for "macs" that of the first image, for "seconds" that of all.

    Seconds are the least of ten passes after two: what else the machine does can only add to them.
    """
    if unit == "parameters":
        return count_parameters(model)
    if unit == "macs":
        return count_macs(model, images[:1])
    copy = deepcopy(model).eval()
    with torch.no_grad():
        return min([_seconds(copy, images) for _ in range(12)][2:])


def savings(
    model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec], images: Tensor, unit: Unit
) -> dict[Change, float]:
    """What each change alone saves, by counting or timing the network without and with it."""
    whole = measure_cost(model, images, unit)
    return {change: whole - cost_with(model, [change], specs, images, unit) for change in changes}


def cost_with(
    model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec], images: Tensor, unit: Unit
) -> float:
    """What the network costs with all these changes; it is left as it was."""
    with _all_changed(model, changes, specs):
        return measure_cost(model, images, unit)


def choose_within(
    model: nn.Module,
    order: Sequence[Change],
    specs: Sequence[EdgeSpec],
    fits: Callable[[nn.Module], bool] | None,
    images: Tensor,
) -> list[Change]:
    """The first changes of `order` with which the network fits, less those without which it fits as well.

    A change is passed over if the network, which told images apart, would give the same for all of them with it: a
    vit whose class token no attention feeds any more.

    Args:
        model: the network; it is left as it was.
        order: the changes, the best first. Of several at one edge the first counts.
        specs: its edges.
        fits: whether the network, with changes made, is cheap enough; None takes all changes.
        images: (B, C, H, W), two or more that differ.

    Raises:
        ValueError: if it does not fit with all of them.
    """
    taken: list[Change] = []
    is_seeing = tells_apart(model, images)  # not so where a fresh classifier is zero
    for change in order:
        if fits is not None and _holds(model, taken, specs, fits):
            break
        if not {name for other in taken for name in other.edges} & set(change.edges):
            taken.append(change)
            if is_seeing and not _holds(model, taken, specs, lambda changed_model: tells_apart(changed_model, images)):
                taken.pop()
    if fits is None:
        return taken
    if not _holds(model, taken, specs, fits):
        raise UserError(_OUT_OF_REACH.format(len(taken)))
    for change in reversed(taken[:-1]):
        rest = [other for other in taken if other != change]
        if _holds(model, rest, specs, fits):
            taken = rest
    return taken


def choose_uniform(
    model: nn.Module,
    changes: Sequence[Change],
    specs: Sequence[EdgeSpec],
    fits: Callable[[nn.Module], bool],
    images: Tensor,
) -> list[Change]:
    """The fewest changes, spread evenly over the depth, with which the network fits.

    Args:
        model: the network; it is left as it was.
        changes: in forward order, one at each edge.
        specs: its edges.
        fits: whether the network, with changes made, is cheap enough.
        images: as for `choose_within`.

    Raises:
        ValueError: if it does not fit with all of them.
    """
    total, is_seeing = len(changes), tells_apart(model, images)
    for count in range(total + 1):
        taken = evenly(changes, count)
        if _holds(model, taken, specs, lambda m: fits(m) and (tells_apart(m, images) or not is_seeing)):
            return taken
    raise UserError(_OUT_OF_REACH.format(total))


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of the items, each in the middle of an equal part of them; `count` is 0 to their number."""
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]


@torch.no_grad()
def tells_apart(model: nn.Module, images: Tensor) -> bool:
    """Whether the network's output differs between images, in eval mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    output = model(images)
    for module, mode in modes.items():
        module.training = mode
    return not bool((output == output[:1]).all())


def _holds(
    model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec], condition: Callable[[nn.Module], bool]
) -> bool:
    """Whether the network with these changes meets a condition."""
    with _all_changed(model, changes, specs):
        return condition(model)


@contextmanager
def _all_changed(model: nn.Module, changes: Sequence[Change], specs: Sequence[EdgeSpec]) -> Iterator[None]:
    by_name = {spec.name: spec for spec in specs}
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(changed(model, by_name, change))
        yield


def _seconds(model: nn.Module, images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    start = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
