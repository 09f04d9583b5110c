"""Writes checkpoints beside the training, which stops only for a copy of the state in memory."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from ssl_adapt.runs.checkpoint import Checkpoints


class CheckpointWriter:
    """Saves checkpoints in a thread of its own, one at a time; each is written as `Checkpoints.save` does.

    torch.distributed.checkpoint's `async_save` stops the training as long, for the same copy. Its folder gets its
    files one by one, without checksums, and loading it runs a pickle, which could hold code.

    Args:
        checkpoints: where they are kept.
        in_background: False to write them at once, without a copy.
    """

    def __init__(self, checkpoints: Checkpoints, *, in_background: bool) -> None:
        self._checkpoints = checkpoints
        self._pool = ThreadPoolExecutor(1, "checkpoint") if in_background else None
        self._pending: Future[None] | None = None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Begin to write the state as it is now, once the one before it is written.

        Raises:
            OSError: that one could not be written, for a full disk, for example; see also `Checkpoints.save`.
        """
        self.wait()
        if self._pool is None:
            self._checkpoints.save(step, state)
        else:
            self._pending = self._pool.submit(self._checkpoints.save, step, copy_to_host(state))

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written, if that is known; waits for nothing."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all is written; raises the error if it could not be."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> Exception | None:
        """Wait and end the thread; returns the error of a checkpoint that could not be written."""
        try:
            self.wait()
        except Exception as error:
            return error
        finally:
            if self._pool is not None:
                self._pool.shutdown()
        return None


def copy_to_host(value: Any) -> Any:
    """The value with copies of its dicts, lists, tuples and tensors, these in the memory of the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copy_to_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copy_to_host, value))
    return value
