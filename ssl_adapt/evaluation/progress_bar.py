"""How far a measurement is, on a terminal; no torch is needed to begin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]  # is told how many more are done
Begin = Callable[[str, int | None], Advance]  # begins a stage: its name, and how many there are to do, where one knows


def show_nothing(stage: str, total: int | None) -> Advance:
    """A `Begin` that shows nothing."""
    return lambda count: None


@contextmanager
def show_progress() -> Iterator[Begin]:
    """Show the stage that has begun last as a bar on standard error, until the end; nothing where that is no terminal.

    Yields:
        What begins a stage.
    """
    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, visible=False)

        def begin(stage: str, total: int | None) -> Advance:
            progress.reset(task, description=stage, total=total, visible=True)
            return partial(progress.advance, task)

        yield begin
