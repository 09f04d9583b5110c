"""Stop signals: recorded when they come, and acted on between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # of Slurm, docker and kill; of Ctrl-C


class InterruptedRunError(Exception):
    """The run got a stop signal, and saved a checkpoint.

    Args:
        signum: the signal.
        step: the last one that was saved.
        again: the argument that resumes from there.

    Attributes:
        signum: the signal, whose number gives the exit code.
    """

    def __init__(self, signum: int, step: int, *, again: str = "run.resume=auto") -> None:
        self.signum = signum
        name = signal.Signals(signum).name
        super().__init__(f"{name} came, and step {step:,} was saved: {again} continues from there")


class StopSignal:
    """A context in which the first SIGTERM or Ctrl-C is only recorded; the second has its usual effect.

    Works only in the main thread, as Python's signal handlers do; in other threads nothing is caught.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        try:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        except ValueError:
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def came(self) -> bool:
        """Whether the signal came to this process."""
        return self._received is not None

    @property
    def number(self) -> int:
        """The signal of this process; SIGTERM where another process got one."""
        return self._received or signal.SIGTERM

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
