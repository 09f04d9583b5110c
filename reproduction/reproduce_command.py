"""The paper's tables: `ssl-adapt reproduce table=1 [scale=cpu] key=value ...`."""

import sys
from collections.abc import Sequence

from reproduction.table_options import ReproduceOptions, read_request
from ssl_adapt.recipe.help import describe_options

USAGE = """\
usage: ssl-adapt reproduce table=1|2|3|4 [KEY=VALUE ...]

Trains the networks of a table of the paper and writes the table, with the paper's numbers beside ours:
  ssl-adapt reproduce table=1 scale=cpu root=cifar10.tar jobs=2 networks=resnet20_nat seeds=1,2
Finished runs are skipped, and others resume where they stopped. Table 2 is Table 1 seed by seed, from the same runs.
"""


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, ReproduceOptions)


def run(arguments: Sequence[str]) -> None:
    """Start the runs that the arguments name, and write the table."""
    request = read_request(arguments)
    from rich.console import Console

    from reproduction.work import reproduce

    reproduce(request, Console(width=None if sys.stdout.isatty() else 150, highlight=False))
