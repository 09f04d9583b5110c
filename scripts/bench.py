"""Time our code beside others': python scripts/bench.py [only=GROUP,...] [repeats=N] [json=PATH]."""

import sys

from benchmarks.options import HELP, parse_options
from ssl_adapt.command import run_command


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP, end="")
        return
    options = parse_options(sys.argv[1:])
    from benchmarks.suite import run_suite  # here: a typo is answered before torch is imported

    run_suite(options)


if __name__ == "__main__":
    run_command(main)
