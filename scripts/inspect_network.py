"""A network's edges as a table, JSON and a drawing: python scripts/inspect_network.py model=NAME (--help for more).

The script is not called inspect.py, as that would hide Python's own module `inspect` from all scripts in this folder.
"""

import sys

from ssl_adapt.arguments import describe_keys, read_arguments
from ssl_adapt.command import run_command
from ssl_adapt.report.options import INSPECT_KEYS, INSPECT_USAGE


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_keys(INSPECT_USAGE, INSPECT_KEYS))
        return
    given = read_arguments(sys.argv[1:], INSPECT_KEYS)
    from rich.console import Console  # here: a typo is answered before torch is imported

    from ssl_adapt.report.edge_table import describe_network, print_network
    from ssl_adapt.report.inspection import draw_network, load_for_inspection

    network = describe_network(*load_for_inspection(given))
    if "drawing" in given:
        draw_network(network, given["drawing"])
    print_network(network, Console(width=None if sys.stdout.isatty() else 150))
    if "json" in given:
        given["json"].write_text(network.to_json() + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
