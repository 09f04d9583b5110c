"""Time our code beside others': python scripts/bench.py [only=GROUP,...] [repeats=N] [json=PATH]."""

import sys

from ssl_adapt.bench.options import HELP, parse_options
from ssl_adapt.bench.suite import run_suite
from ssl_adapt.bench.timing import DisagreementError


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP, end="")
        return
    try:
        run_suite(parse_options(sys.argv[1:]))
    except (ValueError, DisagreementError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
