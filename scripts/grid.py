"""Many runs: python scripts/grid.py recipe=NAME[,NAME] key=value[,value...] ... (--help lists everything)."""

import sys

from rich.console import Console

from ssl_adapt.command import run_command
from ssl_adapt.training.grid import HELP, plan_grid, run_grid


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return
    run_grid(plan_grid(sys.argv[1:]), Console(width=None if sys.stdout.isatty() else 150, highlight=False))


if __name__ == "__main__":
    run_command(main)
