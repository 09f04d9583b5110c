"""Many runs: python scripts/grid.py recipe=NAME[,NAME] key=value[,value...] ... (--help lists everything)."""

import sys

from ssl_adapt.command import run_command
from ssl_adapt.runs.grid_plan import HELP, plan_grid


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return
    grid = plan_grid(sys.argv[1:])
    from rich.console import Console  # here: a typo is answered before torch is imported

    from ssl_adapt.runs.grid import run_grid

    run_grid(grid, Console(width=None if sys.stdout.isatty() else 150, highlight=False))


if __name__ == "__main__":
    run_command(main)
