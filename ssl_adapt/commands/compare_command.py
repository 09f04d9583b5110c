"""Groups of runs compared seed by seed: `ssl-adapt compare NAME=RUNS OTHER=RUNS ...`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import shown
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Text
from ssl_adapt.runs.short_text import short_count, short_time

if TYPE_CHECKING:
    from ssl_adapt.report.compare_groups import Comparison

USAGE = """\
usage: ssl-adapt compare NAME=RUNS OTHER=RUNS [NAME=RUNS ...] [KEY=VALUE ...]

Compares groups of finished runs, seed by seed: scores, cost and time, paired differences from the first group with 95 %
intervals and t-tests, and the keys in which the recipes differ. page=FILE draws them too, as a page that needs no
network. The names are yours; * in RUNS stands for anything:
  original='runs/original_seed*' adapted='runs/adapted_seed*'    a=runs/one,runs/two b=runs/three,runs/four
"""
FILE_WIDTH = 160  # characters of a line in a file


class CompareOptions(Section):
    """How the comparison is printed; the groups are the other arguments."""

    as_json: bool = Field(default=False, alias="json", description="print JSON, for programs")
    page: Text | None = Field(default=None, description="file for a page that shows the groups side by side")
    figures: Text | None = Field(default=None, description="folder for the figures of that page, as SVG and PDF")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, CompareOptions)


def read_compare_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], CompareOptions]:
    """The groups, name -> what names its runs, and the options.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    groups: dict[str, str] = {}
    options = [argument for argument in arguments if argument.startswith(("json=", "page=", "figures="))]
    for argument in arguments:
        name, sign, runs = argument.partition("=")
        if argument in options:
            continue
        if not (sign and name and runs):
            raise UserError(
                f"argument {shown(argument)} has no '=': type NAME=RUNS, such as adapted=runs/adapted_seed*"
            )
        if name in groups:
            raise UserError(f"{name} is given twice: give each group a name of its own")
        groups[name] = runs
    if len(groups) < 2:
        raise UserError("compare needs two groups of runs: type ssl-adapt compare NAME=RUNS OTHER=RUNS")
    return groups, read_options(CompareOptions, options)


def run(arguments: Sequence[str]) -> None:
    """Compare the groups, and print what was found."""
    groups, options = read_compare_arguments(arguments)
    from ssl_adapt.report.compare_groups import compare_groups, find_group

    runs = {name: find_group(name, pattern) for name, pattern in groups.items()}
    found = compare_groups(runs)
    if options.as_json:
        print(json.dumps(asdict(found), indent=2, default=str))
    else:
        _print(found)
    if options.page is not None or options.figures is not None:
        from ssl_adapt.page.write_page import write_comparison

        lines = write_comparison(runs, options.page, options.figures)
        print("", *lines, sep="\n", file=sys.stderr if options.as_json else sys.stdout)


def _print(found: "Comparison") -> None:
    from rich.console import Console

    from ssl_adapt.report.compare_groups import shown_value, with_sd
    from ssl_adapt.report.paired_test import p_text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    seeds = ", ".join(map(str, found.seeds))
    console.print(f"{found.score_name} in %, {found.protocol}; seeds {seeds}\n", markup=False)
    rows = [
        [
            group.name, str(len(group.scores)), with_sd(group.mean, group.sd), short_count(group.parameters),
            short_count(group.macs), short_time(group.seconds),
        ]
        for group in found.groups
    ]  # fmt: skip
    console.print(_table(["", "runs", "mean ± SD", "parameters", "multiply-adds", "training"], rows))
    with_holm = len(found.differences) > 1
    rows = [
        [
            f"{difference.group} - {difference.against}",
            f"{difference.mean:+.2f}",
            "" if difference.low is None else f"{difference.low:+.2f} to {difference.high:+.2f}",
            *(p_text(float("nan") if p is None else p)
              for p in (difference.p_value, *([difference.p_holm] if with_holm else []))),
        ]
        for difference in found.differences
    ]  # fmt: skip
    heads = ["difference, paired by seed", "points", "95 % interval", "p", *(["p, Holm"] if with_holm else [])]
    console.print("", _table(heads, rows), sep="\n")
    if any(difference.low is None for difference in found.differences):
        console.print("\nNo interval and no p: there is one pair, or all pairs differ by the same.", markup=False)
    names = [group.name for group in found.groups]
    rows = [[key, *(shown_value(values[name]) for name in names)] for key, values in found.recipe.items()]
    console.print("", _table(["recipe", *names], rows, "left") if rows else "The recipes are the same.", sep="\n")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], justify: Any = "right") -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if index == 0 else justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
