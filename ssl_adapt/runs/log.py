"""The log of a run: lines and tables on the terminal, `metrics.jsonl`, and accelerate's trackers."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_adapt.runs.live_panel import Lengths, LivePanel
from ssl_adapt.runs.trackers import start_trackers, tracked_numbers

RECURRING = ("start", "step", "epoch", "theta")
FILE_WIDTH = 110  # columns where the output goes to a file
HEARTBEAT_SEC = 600  # after which a line says where an epoch is, where there is no terminal
SCORES = {"knn_top1": "kNN", "accuracy_top1": "accuracy"}
SCORED = ("untrained", "loaded", "evaluation", "before_fix", "after_fix", "result")  # of which the panel shows scores


class RunLog:
    """The log of one run; only the main process prints and writes.

    Args:
        folder: the run folder, which exists.
        accelerator: has the main process and the trackers.
        name: of the run, for the trackers.
        config: the recipe as nested dicts, for the trackers.
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
        self.panel = LivePanel(self.console)
        self._is_live = self.console.is_terminal and accelerator.is_main_process
        self._last_line = time.monotonic()
        for event in self.history:
            self._show_score(event)
        start_trackers(accelerator, name, folder, config)

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
            self._show_score(line)
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        if self.accelerator.trackers and (numbers := tracked_numbers(event, values)):
            self.accelerator.log(numbers, step=step)

    def say(self, text: str, style: str = "") -> None:
        """Print a line; an empty one only where there is none above it."""
        if text or not self._is_gap:
            self.console.print(text, style=style, soft_wrap=True, markup=False)
        self._is_gap = not text or text.endswith("\n")
        self._last_line = time.monotonic()

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

    def start_epoch(self, lengths: Lengths, epoch: int, step: int) -> None:
        """Start the epoch's clock, or continue that of an epoch that was stopped.

        Args:
            lengths: of the run.
            epoch: counted from 0.
            step: steps done.
        """
        seconds, self._steps = self._earlier
        self._earlier = 0.0, 0
        self._start = time.perf_counter() - seconds
        self.panel.start_epoch(lengths, epoch, step)

    def advance(self, loss: float | None, images: int) -> None:
        """One step further, with the loss of so many images; None if it was left out."""
        self._steps += 1
        self.panel.advance(loss, images)
        if not self._is_live and time.monotonic() - self._last_line > HEARTBEAT_SEC:
            self.say(f"  {self.panel.describe_place()}  {self.panel.describe()}")

    def begin(self, stage: str, total: int | None) -> Callable[[int], None]:
        """Show on a terminal what takes long, until the next step; a function that says how many more are done."""
        return self.panel.begin(stage, total)

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
        if self._is_live:
            self.panel.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the panel, and close the trackers, after an error too."""
        self.panel.stop()
        if error is None or self.accelerator.num_processes == 1:
            self.accelerator.end_training()
        else:  # other processes may have ended, and closing the process group would wait for them
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def end_epoch(self) -> tuple[float, int]:
        """The seconds and the steps of the epoch, including those before a stop."""
        assert self._start is not None
        taken = time.perf_counter() - self._start, self._steps
        self._start, self._steps = None, 0
        return taken

    def _show_score(self, event: Mapping[str, Any]) -> None:
        for key, name in SCORES.items():
            if event["event"] in SCORED and key in event:
                self.panel.score_name = name
                self.panel.scores.append(event[key])
