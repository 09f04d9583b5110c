"""The progress of a search, and the folder that keeps it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from reproduction.nat.nat_learner import NatLearner
from reproduction.nat.nat_options import why_unused
from ssl_adapt.backbones.genotypes import Genotype
from ssl_adapt.errors import UserError
from ssl_adapt.runs.checkpoint import Checkpoint, Checkpoints
from ssl_adapt.runs.lock import FolderLock, lock_folder
from ssl_adapt.runs.same_recipe import differing_keys, show_difference

_OTHER = "type another genotype=FILE.json"


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch.

    Attributes:
        loss: mean of the weights'.
        reward: mean gain in a batch's score by the controller's transforms.
        entropy: mean of the controller's, summed over the edges of both cells.
        baseline: at the end.
        seconds: of both passes.
    """

    loss: float
    reward: float
    entropy: float
    baseline: float
    seconds: float


@dataclass
class Progress:
    """The number of batches that are done, and the values of those of the current epoch.

    Attributes:
        step: batches done, of the weights and of the controller.
        history: epochs done.
        losses: of the weights' batches.
        rewards: of the controller's batches.
        entropies: likewise.
        seconds: that the search took until it was last saved.
        epoch_start: `seconds` when the current epoch began.
    """

    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epoch_start: float = 0.0

    def __post_init__(self) -> None:
        self._origin = time.perf_counter() - self.seconds

    def elapsed(self) -> float:
        """Seconds of work on the search so far, over all processes that continued it."""
        return time.perf_counter() - self._origin

    def end_epoch(self, baseline: float) -> Epoch:
        """The record of the epoch that is done; the next one begins."""
        seconds = self.elapsed()
        loss, reward, entropy = (sum(values) / len(values) for values in (self.losses, self.rewards, self.entropies))
        epoch = Epoch(loss, reward, entropy, baseline, seconds - self.epoch_start)
        self.history.append(epoch)
        self.losses, self.rewards, self.entropies, self.epoch_start = [], [], [], seconds
        return epoch


class SearchFolder:
    """The folder of one search: its last two checkpoints, and after the end only the result.

    Inside its context it is locked for this search.

    Args:
        path: the folder; it is created, but no folder above it.
        setting: what the result depends on, as plain data; a search with another one is refused.
        given: the genotype whose transforms are searched; the same.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any], given: Genotype) -> None:
        self.path = path
        self._fixed = {"setting": dict(setting), "given": given.to_dict()}
        self._lock: FolderLock | None = None

    def __enter__(self) -> "SearchFolder":
        """Make and lock it.

        Raises:
            ValueError: if another process is at work in it.
        """
        self.path.mkdir(exist_ok=True)
        self._lock = lock_folder(self.path, other=_OTHER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()

    def load(self) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None; `result` in its state marks the last one.

        Raises:
            ValueError: if it is that of another search, or all are damaged.
        """
        saved = self._checkpoints(keep=2).load_newest()
        if saved is not None:
            self._check_same(saved.state)
        return saved

    def save(self, progress: Progress, learner: NatLearner) -> None:
        """Add a checkpoint, between two batches."""
        progress.seconds = progress.elapsed()
        state = {"progress": asdict(progress), "learner": learner.state_dict(), "random": torch.get_rng_state()}
        self._checkpoints(keep=2).save(progress.step, {**self._fixed, **state})

    def save_result(self, step: int, result: str) -> None:
        """Replace the checkpoints by the result, as text; `step` is the last one."""
        self._checkpoints(keep=1).save(step + 1, {**self._fixed, "result": result})

    def _checkpoints(self, keep: int) -> Checkpoints:
        return Checkpoints(self.path, keep=keep, other=_OTHER)

    def _check_same(self, state: Mapping[str, Any]) -> None:
        old, new = state.get("setting", {}), self._fixed["setting"]
        difference = show_difference(old, new, [key for key in differing_keys(old, new) if not why_unused(key)])
        if not difference and state.get("given") != self._fixed["given"]:
            difference = "the cells of the network"
        if difference:
            raise UserError(
                f"the search in {self.path} was started with other values: {difference}; continue with the same ones, "
                f"or {_OTHER}"
            )


def restore(saved: Checkpoint, learner: NatLearner) -> Progress:
    """The progress of a checkpoint, with the learner and torch's CPU generator as they were.

    Raises:
        ValueError: if this release can't resume from it.
    """
    try:
        progress = dict(saved.state["progress"])
        progress["history"] = [Epoch(**epoch) for epoch in progress["history"]]
        learner.load_state_dict(saved.state["learner"])
        torch.set_rng_state(saved.state["random"])
        return Progress(**progress)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"step {saved.step} was saved by another release ({reason}): {_OTHER}") from error
