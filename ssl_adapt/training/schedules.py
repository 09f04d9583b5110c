"""Pure functions of the step: how long each stage is, and the learning rate.

By hand: timm's schedulers are objects that change the optimiser, and their warm-up begins one step lower than ours.
"""

import math
from dataclasses import dataclass

from ssl_adapt.errors import UserError


@dataclass(frozen=True)
class Stages:
    """The lengths of a run, in optimiser steps.

    Attributes:
        steps_per_epoch: full batches in an epoch.
        architecture_steps: weights and theta train by turns.
        anneal_steps: weights train while theta moves to its one-hot choice.
        total_steps: the whole run; what is left after the fix is the network stage.
        rounds: equal parts of the first two stages, each of which ends with its share of the annealing and a fix.
    """

    steps_per_epoch: int
    architecture_steps: int
    anneal_steps: int
    total_steps: int
    rounds: int = 1

    @property
    def fix_step(self) -> int:
        """The step before which the architecture is fixed."""
        return self.architecture_steps + self.anneal_steps

    def round_chosen_before(self, step: int) -> int | None:
        """The round (0, 1, ...) whose choice is made before that step; None where none is."""
        return next((index for index in range(self.rounds) if step == self._choice_step(index)), None)

    def is_fixed_before(self, step: int) -> bool:
        """Whether a round ends before that step."""
        return any(step == self._round_end(index) for index in range(self.rounds))

    def annealed(self, step: int) -> float | None:
        """The share of its round's annealing that is done after that step; None for a step without annealing."""
        for index in range(self.rounds):
            begin, end = self._choice_step(index), self._round_end(index)
            if begin <= step < end:
                return (step + 1 - begin) / (end - begin)
        return None

    def _round_end(self, index: int) -> int:
        return (index + 1) * self.fix_step // self.rounds

    def _choice_step(self, index: int) -> int:
        return self._round_end(index) - self.anneal_steps // self.rounds

    @property
    def epochs(self) -> int:
        """Epochs begun; the last may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    def last_step(self, epoch: int) -> int:
        """The number of steps done when that epoch (counted from 0) ends."""
        return min((epoch + 1) * self.steps_per_epoch, self.total_steps)

    def name_at_step(self, step: int) -> str:
        """ "architecture", "anneal" or "network"."""
        if self.annealed(step) is not None:
            return "anneal"
        return "architecture" if step < self.fix_step else "network"


def plan_stages(
    *,
    steps_per_epoch: int,
    epochs: int,
    adapt_epochs: float,
    anneal_epochs: float,
    max_steps: int | None,
    rounds: int = 1,
) -> Stages:
    """The stages in steps; with `max_steps` they shrink in proportion, but none that exists falls to 0.

    Raises:
        ValueError: if `max_steps` is smaller than the number of stages.
    """
    total = epochs * steps_per_epoch
    architecture, anneal = (
        max(1, round(length * steps_per_epoch)) if length else 0 for length in (adapt_epochs, anneal_epochs)
    )
    anneal = min(anneal, total - architecture)  # both may have been rounded up
    steps = [architecture, anneal, total - architecture - anneal]
    if max_steps is not None and max_steps < total:
        stages = sum(step > 0 for step in steps)
        if max_steps < stages:
            raise UserError(f"train.max_steps={max_steps} is too short for {stages} stages: set it to {stages} or more")
        steps = _shrink(steps, max_steps)
    most = steps[1] or steps[0]  # each round anneals for a step at least, or has one
    return Stages(steps_per_epoch, steps[0], steps[1], sum(steps), max(1, min(rounds, most)))


def _shrink(steps: list[int], total: int) -> list[int]:
    """Lengths in proportion to `steps` with the sum `total`, at least 1 where `steps` is."""
    shrunk = [max(1, round(step * total / sum(steps))) if step else 0 for step in steps]
    while (excess := sum(shrunk) - total) != 0:
        longest = shrunk.index(max(shrunk))
        shrunk[longest] -= 1 if excess > 0 else -1
    return shrunk


def lr_at_step(step: int, *, lr: float, schedule: str, warmup_steps: int, total_steps: int) -> float:
    """The learning rate of step 0, 1, ...: linear warm-up to `lr`, then constant or a cosine down to 0."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    if schedule == "constant":
        return lr
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return lr * (1 + math.cos(math.pi * progress)) / 2


def steps_to_change(kind: str, *, theta_lr: float, none_way: float) -> int:
    """About how many steps in one direction an edge of that kind needs until another candidate wins.

    Adam moves an entry of theta by about its learning rate a step: an operation gives way to the identity once
    theta_id has risen and theta_same has fallen by a half, and an identity to none after twice that way. A none
    edge becomes the identity once theta_id has risen by `none_way`, from its start to theta_same = 1 or the threshold;
    from above it has that way to fall until it stays none.
    """
    way = {"operation": 0.5, "identity": 1.0, "none": abs(none_way)}[kind]
    return max(1, math.ceil(way / theta_lr))
