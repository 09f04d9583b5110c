"""A table of the runs below a folder: `ssl-adapt runs [DIR] [KEY=VALUE ...]`."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Text
from ssl_adapt.runs.run_list import RunRow, age, list_runs
from ssl_adapt.runs.short_text import rough_time, short_count, short_time

USAGE = """\
usage: ssl-adapt runs [DIR] [KEY=VALUE ...]

Lists the runs in a folder and below it, with their state, score and cost, and the command that continues each:
  ssl-adapt runs    ssl-adapt runs runs/grid sort=score    ssl-adapt runs state=killed    ssl-adapt runs 'name=*seed=1'
"""
COLUMNS = ("run", "state", "stage", "epoch", "score", "parameters", "multiply-adds", "training", "age")
LEFT = ("run", "state", "stage")
WIDE, ONLY_WIDE = 110, ("stage", "multiply-adds")  # characters of a line; what narrower ones leave out
WIDEST = 500  # of a file
COLOURS = {"running": "cyan", "finished": "green", "damaged": "red", "failed": "red", "killed": "red"}


class RunsOptions(Section):
    """Which runs are listed, and how."""

    folder: Text = Field(default="runs", description="the runs in this folder and below it; also as the word DIR")
    sort: Literal["age", "name", "state", "score", "seconds", "parameters", "macs"] = Field(
        default="name", description="age: the newest first; score: the best first; the others rise"
    )
    state: Literal["running", "finished", "stopped", "interrupted", "failed", "killed", "damaged"] | None = Field(
        default=None, description="only those in this state; killed: a run whose process is gone; null: all"
    )
    name: Text | None = Field(
        default=None, description="only those of this name, in which * stands for anything, as in '*seed=1'; null: all"
    )
    as_json: bool = Field(default=False, alias="json", description="print a JSON list, for programs")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, RunsOptions)


def read_runs_arguments(arguments: Sequence[str]) -> RunsOptions:
    """The options; a first argument without a key is the folder. A star, which YAML would take for its own, is text."""
    if arguments and "=" not in arguments[0]:
        arguments = [f"folder={json.dumps(arguments[0])}", *arguments[1:]]
    texts = [argument.partition("=") for argument in arguments]
    return read_options(
        RunsOptions, [f"{key}{sign}{json.dumps(text) if text[:1] == '*' else text}" for key, sign, text in texts]
    )


def run(arguments: Sequence[str]) -> None:
    """Print the table."""
    options = read_runs_arguments(arguments)
    rows = [
        row
        for row in list_runs(Path(options.folder).expanduser())
        if options.state in (None, row.state) and (options.name is None or fnmatchcase(row.name, options.name))
    ]
    keys: dict[str, Callable[[RunRow], Any]] = {
        "age": age,
        "state": lambda row: row.state,
        "score": lambda row: math.inf if row.score is None else -row.score,
        "seconds": lambda row: row.seconds,
        "parameters": lambda row: row.parameters[1] or math.inf,
        "macs": lambda row: row.macs[1] or math.inf,
    }
    if options.sort in keys:  # they come by name, which decides between equals
        rows.sort(key=keys[options.sort])
    if options.as_json:
        print(json.dumps([_as_json(row) for row in rows], indent=2))
    elif rows:
        _print_table(rows)
    else:
        print(f"no such runs in {options.folder}", file=sys.stderr)


def _print_table(rows: Sequence[RunRow]) -> None:
    """The table; then what continues those that are not finished, a line each, to be copied."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Words

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDEST
    columns = COLUMNS if console.width >= WIDE else [column for column in COLUMNS if column not in ONLY_WIDE]
    cells = [_cells(row) for row in rows]
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:  # where the terminal is narrow, the names of runs are cut, and nothing else
        width = max(len(row[column]) for row in cells) if column != "run" else None
        table.add_column(column, justify="left" if column in LEFT else "right", no_wrap=True, min_width=width)
    for row in cells:
        table.add_row(*(Words(row[column], COLOURS.get(row[column], "")) for column in columns))
    console.print(table)
    for unfinished in (row for row in rows if row.go_on is not None or row.state == "damaged"):
        reason = f": {' '.join(unfinished.reason.split())}" if unfinished.reason else ""
        console.print(f"\n{unfinished.name} {unfinished.state}{reason}", markup=False, soft_wrap=True)
        if unfinished.go_on is not None:
            console.print(f"  {unfinished.go_on}", markup=False, soft_wrap=True)


def _cells(row: RunRow) -> dict[str, str]:
    if row.state == "damaged":
        return dict.fromkeys(COLUMNS, "") | {"run": row.name, "state": row.state}
    return {
        "run": row.name,
        "state": row.state,
        "stage": row.stage or "",
        "epoch": f"{row.epoch}/{row.epochs}",
        "score": "" if row.score is None else f"{row.score:.2%}",
        "parameters": _before_and_after(row.parameters),
        "multiply-adds": _before_and_after(row.macs),
        "training": short_time(row.seconds) if row.seconds else "",
        "age": rough_time(age(row)),
    }


def _before_and_after(counts: tuple[int | None, int | None]) -> str:
    """Both where they differ; the second where the first is not known."""
    before, after = counts
    if after is None:
        return ""
    return short_count(after) if before in (None, after) else f"{short_count(before or 0)} → {short_count(after)}"


def _as_json(row: RunRow) -> dict[str, Any]:
    values = {**asdict(row), "folder": str(row.folder), "age_seconds": round(age(row), 1)}
    for key in ("parameters", "macs"):
        values[f"{key}_before"], values[key] = getattr(row, key)
    return values
