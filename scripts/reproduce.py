"""The paper's tables: python scripts/reproduce.py table=1 [scale=cpu] ... (--help lists everything)."""

import sys

from rich.console import Console

from ssl_adapt.command import run_command
from ssl_adapt.reproduce.options import HELP, read_request
from ssl_adapt.reproduce.work import reproduce


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return
    reproduce(read_request(sys.argv[1:]), Console(width=None if sys.stdout.isatty() else 150, highlight=False))


if __name__ == "__main__":
    run_command(main)
