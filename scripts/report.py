"""Figures of architectures and of theta: python scripts/report.py before=A after=B drawing=FILE (--help for more)."""

import sys

from ssl_adapt.arguments import describe_keys
from ssl_adapt.command import run_command
from ssl_adapt.report.options import REPORT_KEYS, REPORT_USAGE, read_report_arguments


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_keys(REPORT_USAGE, REPORT_KEYS))
        return
    given = read_report_arguments(sys.argv[1:])
    from ssl_adapt.report.figures import draw_report  # here: a typo is answered before torch is imported

    for line in draw_report(given):
        print(line)


if __name__ == "__main__":
    run_command(main)
