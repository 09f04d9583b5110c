"""The timing core: contenders that do the same work, called in turn, and the median and spread of each."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch

WARM_UP_ROUNDS = 2  # the first calls allocate memory and choose kernels


class DisagreementError(RuntimeError):
    """Contenders gave different answers, so that comparing their times would mean nothing."""


@dataclass(frozen=True)
class Comparison:
    """Contenders that do the same work, before they are timed.

    Attributes:
        name: what is timed, with its sizes.
        shows: what the reader learns from the figures.
        contenders: name -> one call; the first is the reference of the ratios.
        unit: what a call gets through, in the plural ("images").
        units_per_call: how many of them.
        notes: what a fair reader has to know, and which contenders are left out.
        check: raises DisagreementError if the answers of the first calls, name -> answer, differ.
    """

    name: str
    shows: str
    contenders: Mapping[str, Callable[[], Any]]
    unit: str
    units_per_call: int
    notes: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], None] | None = None


@dataclass(frozen=True)
class Timing:
    """The seconds of every timed call of one contender, in order; at least two."""

    seconds: tuple[float, ...]

    @property
    def median_sec(self) -> float:
        """The middle call."""
        return median(self.seconds)

    @property
    def iqr_sec(self) -> float:
        """The spread: the distance between the quartiles, within which half of the calls lie."""
        lower, _, upper = quantiles(self.seconds, n=4, method="inclusive")
        return upper - lower


@dataclass(frozen=True)
class Result:
    """A comparison and the timing of each of its contenders, in the same order."""

    comparison: Comparison
    timings: Mapping[str, Timing]

    @property
    def reference(self) -> str:
        """The contender whose median is 1 in the ratios."""
        return next(iter(self.timings))

    def ratio(self, contender: str) -> float:
        """The contender's median over the reference's: above 1 it is slower."""
        return self.timings[contender].median_sec / self.timings[self.reference].median_sec

    def units_per_sec(self, contender: str) -> float:
        """What the contender gets through at its median."""
        return self.comparison.units_per_call / self.timings[contender].median_sec


def time_contenders(
    comparison: Comparison,
    *,
    repeats: int,
    device: torch.device,
    warm_up_rounds: int = WARM_UP_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """The timings of all contenders, called in turn (A B A B ...), so that a slow moment hits each of them.

    Args:
        comparison: what is timed.
        repeats: timed calls of each contender, at least 2.
        device: where they compute; a GPU is waited for before the clock is read.
        warm_up_rounds: calls of each contender before the first that counts; the answers of the first
            round are checked.
        clock: seconds that only go up.

    Raises:
        DisagreementError: if the contenders' answers differ.
    """

    def read_clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    _warm_up(comparison, warm_up_rounds)
    seconds: dict[str, list[float]] = {name: [] for name in comparison.contenders}
    for _ in range(repeats):
        for name, call in comparison.contenders.items():
            start = read_clock()
            call()
            seconds[name].append(read_clock() - start)
    return Result(comparison, {name: Timing(tuple(times)) for name, times in seconds.items()})


def _warm_up(comparison: Comparison, rounds: int) -> None:
    for index in range(rounds):
        answers = {name: call() for name, call in comparison.contenders.items()}
        if index == 0 and comparison.check is not None:
            comparison.check(answers)
