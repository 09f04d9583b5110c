"""The width that gives a network a wanted number of parameters."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.errors import UserError

HIDDEN_STEP = 32


@dataclass(frozen=True)
class FittedWidth:
    """What was chosen to meet a number of parameters.

    Attributes:
        channels: width of the network.
        hidden: width of the projector's hidden layer; None where none was counted.
        parameters: what they give.
        target: what was asked for.
    """

    channels: int
    hidden: int | None
    parameters: int
    target: int


def count_unbuilt(create: Callable[[], nn.Module]) -> int:
    """Parameters of the network that `create()` gives, without memory for its weights."""
    with torch.device("meta"):
        return count_parameters(create())


def projector_parameters(features: int, hidden: int, projection: int) -> int:
    """Parameters of Linear without bias, BatchNorm, ReLU, Linear: features -> hidden -> projection."""
    return features * hidden + 2 * hidden + hidden * projection + projection


def fit_width(count: Callable[[int], int], target: int, tolerance: int, candidates: Sequence[int]) -> FittedWidth:
    """The candidate whose count is nearest to `target`.

    Args:
        count: parameters at a width; grows with it.
        target: wanted parameters.
        tolerance: how far from `target` the answer may be.
        candidates: widths, ascending.

    Raises:
        ValueError: if no candidate lies within the tolerance.
    """
    channels = _nearest(count, target, candidates)
    fitted = FittedWidth(channels, None, count(channels), target)
    return _check(fitted, tolerance, "another range of widths, or a projector to fit as well")


def fit_width_and_projector(
    count: Callable[[int], int],
    features: Callable[[int], int],
    target: int,
    tolerance: int,
    candidates: Sequence[int],
    *,
    hidden: int = 512,
    projection: int = 128,
) -> FittedWidth:
    """The width of a network and of its projector that bring both together nearest to `target`.

    The network's width comes first, with a projector of `hidden`; then the hidden width, a multiple of 32
    from `hidden` / 2 to 2 `hidden`, closes the gap.

    Args:
        count: parameters of the network without a head, at a width; grows with it.
        features: what the network gives to the projector, at a width.
        target: wanted parameters.
        tolerance: how far from `target` the answer may be.
        candidates: widths, ascending.
        hidden: the usual hidden width.
        projection: outputs of the projector.

    Raises:
        ValueError: if no pair lies within the tolerance.
    """

    def count_both(channels: int, width: int) -> int:
        return count(channels) + projector_parameters(features(channels), width, projection)

    channels = _nearest(lambda width: count_both(width, hidden), target, candidates)
    backbone, given = count(channels), features(channels)
    widths = range(max(1, hidden // 2 // HIDDEN_STEP) * HIDDEN_STEP, 2 * hidden + 1, HIDDEN_STEP)
    chosen = _nearest(lambda width: backbone + projector_parameters(given, width, projection), target, widths)
    fitted = FittedWidth(channels, chosen, count_both(channels, chosen), target)
    return _check(fitted, tolerance, "another range of widths, or another hidden width")


def _nearest(count: Callable[[int], int], target: int, candidates: Sequence[int]) -> int:
    if not candidates:
        raise UserError("there are no candidates; give at least one width")
    above = bisect_left(candidates, target, key=count)
    return min(candidates[max(0, above - 1) : above + 1], key=lambda width: abs(count(width) - target))


def _check(fitted: FittedWidth, tolerance: int, advice: str) -> FittedWidth:
    if abs(fitted.parameters - fitted.target) > tolerance:
        chosen = f"width {fitted.channels}" + (f" with hidden {fitted.hidden}" if fitted.hidden else "")
        raise UserError(
            f"no width gives {fitted.target:,} +- {tolerance:,} parameters: the nearest, {chosen}, gives "
            f"{fitted.parameters:,}; try {advice}"
        )
    return fitted
