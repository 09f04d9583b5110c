"""What a run is doing, in the last lines of a terminal: epoch, run, loss, speed, score, and what takes long."""

import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ssl_adapt.runs.short_text import short_time, sparkline

REFRESH_PER_SEC = 4
RECENT = 0.05  # the weight of the newest step in what is shown of steps
MOST_BARS, NARROW = 24, 100  # of the sparkline; characters of a line that leave it half as many
WIDEST = 120  # characters of the lines with bars
BAR = "bright_blue"


class Lengths(Protocol):
    """How long a run is, in steps; epochs are counted from 0."""

    @property
    def epochs(self) -> int:
        """Epochs of the run."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        ...

    @property
    def total_steps(self) -> int:
        """Steps of the run."""
        ...

    def last_step(self, epoch: int) -> int:
        """Steps done when that epoch ends."""
        ...

    def name_at_step(self, step: int) -> str:
        """The stage of that step."""
        ...


class Recent:
    """A mean in which newer values weigh more; None before the first."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, value: float) -> None:
        """Take one more value in."""
        self.value = value if self.value is None else self.value + RECENT * (value - self.value)


class LivePanel:
    """The lines at the bottom of a terminal, drawn four times a second by a thread of rich.

    What a step costs is a few additions: the thread reads numbers that lie here, and none from the device.

    Args:
        console: of the terminal.

    Attributes:
        scores: those measured so far, in [0, 1].
        score_name: what they are: "kNN" or "accuracy".
    """

    def __init__(self, console: Console) -> None:
        self.scores: list[float] = []
        self.score_name = ""
        self._console = console
        self._lengths: Lengths | None = None
        self._epoch = self._step = 0
        self._loss, self._step_sec, self._images = Recent(), Recent(), 0
        self._last: float | None = None  # when the step before ended; None: other work came between
        self._task: ProgressBar | None = None
        self._task_name = ""
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=REFRESH_PER_SEC, transient=True,
            vertical_overflow="crop",
        )  # fmt: skip

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def stop(self) -> None:
        """Remove the lines."""
        self._live.stop()

    def start_epoch(self, lengths: Lengths, epoch: int, step: int) -> None:
        """From now on steps are those of this epoch (from 0), of which the next one is the `step`-th (from 0)."""
        self._lengths, self._epoch, self._step = lengths, epoch, step
        self._task, self._last = None, None

    def advance(self, loss: float | None, images: int) -> None:
        """One step further, with the loss of so many images."""
        now = time.perf_counter()
        self._step += 1
        self._images = images
        self._task = None
        if self._last is not None:
            self._step_sec.add(now - self._last)
        if loss is not None:
            self._loss.add(loss)
        self._last = now

    def begin(self, stage: str, total: int | None) -> Callable[[int], None]:
        """Show other work than steps, until the next step; a function that says how many more of it are done."""
        task = ProgressBar(total=total, pulse=total is None, complete_style=BAR, finished_style=BAR, pulse_style=BAR)
        self._task, self._task_name, self._last = task, stage, None

        def advance(count: int) -> None:
            task.completed += count

        return advance

    def render(self) -> RenderableType:
        """The lines as they are now; at most four."""
        lines: list[RenderableType] = []
        if self._lengths is not None:
            first, last = self._epoch * self._lengths.steps_per_epoch, self._lengths.last_step(self._epoch)
            bars = self._grid()
            self._add(bars, f"epoch {self._epoch + 1}/{self._lengths.epochs}", self._step - first, last - first)
            self._add(bars, "run", self._step, self._lengths.total_steps)
            lines = [bars, Text(self.describe(), no_wrap=True, overflow="ellipsis")]
        if self._task is not None:
            task = self._grid()
            share = f"{self._task.completed / self._task.total:.0%}" if self._task.total else ""
            task.add_row(Text(self._task_name), self._task, share, "")
            lines.append(task)
        return Group(*lines)

    def describe_place(self) -> str:
        """Epoch and step, in words."""
        assert self._lengths is not None
        place = f"epoch {self._epoch + 1}/{self._lengths.epochs}, step {self._step:,} of {self._lengths.total_steps:,}"
        sec = self._step_sec.value
        return place if sec is None else f"{place}, {short_time(sec * (self._lengths.total_steps - self._step))} left"

    def describe(self) -> str:
        """Stage, loss, speed and score, on a line."""
        assert self._lengths is not None
        parts = [self._lengths.name_at_step(min(self._step, self._lengths.total_steps - 1))]
        if self._loss.value is not None:
            parts.append(f"loss {self._loss.value:.4f}")
        if self._step_sec.value:
            parts.append(f"{self._images / self._step_sec.value:,.0f} images/s")
        if self.scores:
            width = MOST_BARS if self._console.width >= NARROW else MOST_BARS // 2
            parts.append(f"{self.score_name} {self.scores[-1]:.2%} {sparkline(self.scores, width)}")
        return "  ".join(parts)

    def _add(self, bars: Table, name: str, done: int, total: int) -> None:
        left = "" if self._step_sec.value is None else f"{short_time(self._step_sec.value * (total - done))} left"
        bar = ProgressBar(total=total, completed=done, complete_style=BAR, finished_style=BAR)
        bars.add_row(name, bar, Text(f"{done:,}/{total:,}", justify="right"), Text(left, justify="right"))

    def _grid(self) -> Table:
        """A grid of lines, each a name, a bar and two short texts."""
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.width = min(self._console.width, WIDEST)
        for ratio in (None, 1, None, None):
            grid.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
        return grid
