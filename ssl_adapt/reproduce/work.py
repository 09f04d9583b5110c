"""The way of a table: its runs, then what came of them."""

from rich.console import Console

from ssl_adapt.reproduce.options import Request
from ssl_adapt.reproduce.runs import has_changes
from ssl_adapt.training.grid import Grid, run_grid


def reproduce(request: Request, console: Console) -> None:
    """Work off the runs that have not finished, in two rounds.

    The second has what starts from what the first has found; controls of runs that changed no edge are left out.

    Raises:
        ValueError: if a run fails; the others of its round have ended then.
    """
    first = [run.grid_run() for run in request.runs if not run.is_second_round()]
    first += [run.search() for run in request.runs if run.method.how == "nat"]
    run_grid(Grid(request.folder, tuple(first), request.grid), console)
    second = [
        run.grid_run() for run in request.runs if run.is_second_round() and (not run.method.source or has_changes(run))
    ]
    run_grid(Grid(request.folder, tuple(second), request.grid), console)
