"""How long the parts of a step take, measured in those steps alone that are logged."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import torch

from ssl_adapt.data import Batch


class StepTimer:
    """Times the parts of every so many steps; the others run as if there were no timer.

    A GPU works behind the program that feeds it, so in a timed step it is waited for at each reading of the clock.

    Args:
        device: where the network is.
        every: time each step whose number, counted from 1, is a multiple of it; 0: none.

    Attributes:
        is_on: whether the current step is timed.
        ms: milliseconds of the current step by part, as far as it is timed.
    """

    def __init__(self, device: torch.device, every: int) -> None:
        self._device, self._every = device, every
        self.is_on = False
        self.ms: dict[str, float] = {}

    def batches(self, batches: Iterator[Batch], step: int) -> Iterator[Batch]:
        """The batches, of which the first is for the step after `step` steps; waiting for one is the part "data"."""
        for number in count(step + 1):
            self.is_on, self.ms = self._every > 0 and number % self._every == 0, {}
            with self.part("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time inside is that part's, in a step that is timed."""
        if not self.is_on:
            yield
            return
        start = self._read_clock()
        yield
        self.ms[name] = round(1000 * (self._read_clock() - start), 3)

    def _read_clock(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()


NO_TIMER = StepTimer(torch.device("cpu"), 0)
