"""How a run shares out its batches, which may change where it goes on with another number of processes."""

from typing import Any, NamedTuple

from ssl_adapt.errors import UserError
from ssl_adapt.processes import process_count
from ssl_adapt.recipe import AdaptSection, TrainSection
from ssl_adapt.runs.checkpoint import Checkpoint


class Shares(NamedTuple):
    """The processes and the parts of each one's share when `train.accumulate` was typed: at the start, or since.

    A batch has the same images in the same order with any number of processes. What changes is how many of them one
    process takes at once.

    Attributes:
        processes: how many there were.
        accumulate: `train.accumulate`.
    """

    processes: int
    accumulate: int

    def parts(self, sync_batchnorm: bool) -> int:
        """The parts of each share with as many processes as there are now.

        BatchNorm over all processes: as typed, so that the statistics are those of as many images as before. Of
        each process alone: as many that no part has more images than before, for the same reason.
        """
        return self.accumulate if sync_batchnorm else -(-self.processes * self.accumulate // process_count())


def find_shares(train: TrainSection, saved: Checkpoint | None) -> Shares:
    """The shares of a new run or, where `train.accumulate` stayed the same, those of the run that goes on.

    Raises:
        ValueError: if `train.accumulate` is another one, and the number of processes is not.
    """
    now = Shares(process_count(), train.accumulate)
    if saved is None or "shares" not in saved.state:
        return now
    before = Shares(*saved.state["shares"])
    if before.accumulate == now.accumulate:
        return before
    if processes_before(saved) == now.processes:
        raise UserError(
            f"the run was started with train.accumulate={before.accumulate}, now {now.accumulate}: type "
            f"{before.accumulate}, as it may only change with the number of processes, or start in another run.dir"
        )
    return now


def processes_before(saved: Checkpoint) -> int:
    """The number of processes that saved a checkpoint."""
    return len(saved.state["random_states"])


def learner_state(saved: Checkpoint | None, adapt: AdaptSection | None) -> dict[str, Any] | None:
    """The learner's state in a checkpoint, without what is to be measured anew: times of shares of another size."""
    if saved is None:
        return None
    state: dict[str, Any] = dict(saved.state["learner"])
    if adapt is not None and adapt.budget_latency is not None and processes_before(saved) != process_count():
        state["plain_cost"] = None
    return state


def describe_change(saved: Checkpoint, train: TrainSection, batch_size: int) -> str | None:
    """What another number of processes changes, in a sentence; None if there are as many as before.

    Args:
        saved: the checkpoint from which the run goes on.
        train: `accumulate` is that of now.
        batch_size: images in a batch, over all processes.
    """
    before, now = processes_before(saved), process_count()
    if before == now:
        return None
    images = batch_size // now // train.accumulate
    norm = "" if train.sync_batchnorm else f", BatchNorm's statistics are those of {images} images"
    return (
        f"{before} process(es) before, now {now}, each with {images} images at once (train.accumulate="
        f"{train.accumulate}): batches and their order are kept, but not the random numbers of views and dropped "
        f"paths, nor the last bits of sums{norm}"
    )
