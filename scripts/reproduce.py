"""The paper's tables: python scripts/reproduce.py table=1 [scale=cpu] ... (--help lists everything)."""

import sys

from reproduction.options import HELP, read_request
from ssl_adapt.command import run_command


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return
    request = read_request(sys.argv[1:])
    from rich.console import Console  # here: a typo is answered before torch is imported

    from reproduction.work import reproduce

    reproduce(request, Console(width=None if sys.stdout.isatty() else 150, highlight=False))


if __name__ == "__main__":
    run_command(main)
