"""Many runs: `ssl-adapt grid recipe=NAME[,NAME] key=value[,value...] ...`."""

import sys
from collections.abc import Sequence

from ssl_adapt.recipe.help import describe_options
from ssl_adapt.runs.grid_plan import GridOptions, plan_grid

USAGE = """\
usage: ssl-adapt grid recipe=NAME[,NAME] [KEY=VALUE[,VALUE...] ...]

Starts a run for every combination of the values between commas; commas in [ ], { } and quotes do not separate:
  ssl-adapt grid recipe=simclr_resnet20 seed=0,1,2 adapt.sharing=full,cell jobs=2
Runs that have finished are skipped, and others resume where they stopped, so type the same command to continue.
All keys of ssl-adapt pretrain may be given except run.dir and run.resume, which the grid sets.
"""


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, GridOptions)


def run(arguments: Sequence[str]) -> None:
    """Start the runs, and wait for them."""
    grid = plan_grid(arguments)
    from rich.console import Console

    from ssl_adapt.runs.grid import run_grid

    run_grid(grid, Console(width=None if sys.stdout.isatty() else 150, highlight=False))
