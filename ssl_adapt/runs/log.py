"""The log of a run: lines and tables on the terminal, `metrics.jsonl`, and accelerate's trackers."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

RECURRING = ("start", "step", "epoch", "theta")
FILE_WIDTH = 110  # columns where the output goes to a file


class RunLog:
    """The log of one run; only the main process prints and writes.

    Args:
        folder: the run folder, which exists.
        accelerator: has the main process and the trackers.
        name: of the run, for the trackers.
        config: the recipe, for the trackers.
        state: `state_dict` at the checkpoint that the run resumes from; None for a new run.

    Attributes:
        history: the events so far, without those of every start, epoch or step.
        evaluation_seconds: that evaluations have taken, those before a stop included.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        name: str,
        config: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.console = Console(quiet=not accelerator.is_main_process, highlight=False)
        if not self.console.is_terminal:
            self.console.width = FILE_WIDTH
        self.path = folder / "metrics.jsonl"
        self.history: list[dict[str, Any]] = list(state["history"]) if state else []
        if accelerator.is_main_process:
            with self.path.open("ab") as file:
                file.truncate(min(state["metrics_bytes"] if state else 0, file.tell()))
        self.bad_images_logged = 0
        self.evaluation_seconds: float = state.get("evaluation_seconds", 0.0) if state else 0.0
        self._is_gap = False  # whether the last line is empty
        self._start: float | None = None  # of the epoch's clock; None between epochs
        self._steps = 0
        self._earlier: tuple[float, int] = tuple(state.get("epoch", (0.0, 0))) if state else (0.0, 0)
        self._progress: Progress | None = None
        accelerator.init_trackers(name, config=dict(config))

    def state_dict(self) -> dict[str, Any]:
        """The events so far, the length of `metrics.jsonl`, and seconds and steps of the epoch, for a checkpoint."""
        return {
            "epoch": (0.0 if self._start is None else time.perf_counter() - self._start, self._steps),
            "metrics_bytes": self.path.stat().st_size if self.path.exists() else 0,
            "history": list(self.history),
            "evaluation_seconds": self.evaluation_seconds,
        }

    def record(self, event: str, *, step: int, **values: Any) -> None:
        """Append one line to `metrics.jsonl` and pass the numbers on to the trackers."""
        line = {"event": event, "step": step, **values}
        if event not in RECURRING:
            self.history.append(line)
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        self.accelerator.log(numbers, step=step)

    def say(self, text: str, style: str = "") -> None:
        """Print a line; an empty one only where there is none above it."""
        if text or not self._is_gap:
            self.console.print(text, style=style, soft_wrap=True, markup=False)
        self._is_gap = not text or text.endswith("\n")

    def show_table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns after the first are aligned to the right."""
        table = Table(header_style="dim", box=None, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        self.say(title, style="bold")
        self.console.print(table)
        self.say("")

    def show_plan(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print the plan of the run: names and descriptions."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        self.console.print(table)
        self.say("")

    def start_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """Start the epoch's clock, or continue that of an epoch that was stopped; show a progress bar on a terminal."""
        seconds, self._steps = self._earlier
        self._earlier = 0.0, 0
        self._start = time.perf_counter() - seconds
        if self.console.is_terminal and self.accelerator.is_main_process:
            columns = (
                TextColumn("epoch {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._task = self._progress.add_task(f"{epoch}/{epochs}", total=steps)
            self._progress.start()

    def advance(self) -> None:
        """One step further."""
        self._steps += 1
        if self._progress is not None:
            self._progress.advance(self._task)

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """The time inside does not count as the epoch's."""
        start = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - start

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The time inside is added to that of evaluations."""
        start = time.perf_counter()
        yield
        self.evaluation_seconds += time.perf_counter() - start

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the progress bar, and close the trackers, after an error too."""
        self._remove_bar()
        if error is None or self.accelerator.num_processes == 1:
            self.accelerator.end_training()
        else:  # other processes may have ended, and closing the process group would wait for them
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def end_epoch(self) -> tuple[float, int]:
        """Remove the progress bar; returns the seconds and the steps of the epoch, including those before a stop."""
        assert self._start is not None
        self._remove_bar()
        taken = time.perf_counter() - self._start, self._steps
        self._start, self._steps = None, 0
        return taken

    def _remove_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
