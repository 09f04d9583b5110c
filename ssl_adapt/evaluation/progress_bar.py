"""A progress bar for evaluations on a terminal; it needs no torch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]  # called with how many more are done
Begin = Callable[[str, int | None], Advance]  # begins a stage: its name, and how many there are to do, or None


def show_nothing(stage: str, total: int | None) -> Advance:
    """A `Begin` that shows nothing."""
    return lambda count: None


@contextmanager
def show_progress() -> Iterator[Begin]:
    """Shows the current stage as a bar on standard error, if that is a terminal; in the first process of a run alone.

    Yields:
        A function that begins a stage.
    """
    console = Console(stderr=True, highlight=False)
    is_shown = console.is_terminal and os.environ.get("RANK", "0") == "0"
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as progress:
        task = progress.add_task("", total=None, visible=False)

        def begin(stage: str, total: int | None) -> Advance:
            progress.reset(task, description=stage, total=total, visible=True)
            return partial(progress.advance, task)

        yield begin
