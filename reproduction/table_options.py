"""The options of a table, and the runs that they select."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from reproduction.systems import METHODS, NETWORKS, SEEDS, Network, Scale
from reproduction.table_runs import TableRun, plan_runs
from ssl_adapt.errors import UserError
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Expected, Text
from ssl_adapt.runs.grid_plan import LaunchOptions


def _whole_numbers(value: object) -> tuple[int, ...]:
    """The numbers between commas."""
    numbers = tuple(int(part) for part in str(value).split(","))
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise UserError("not different whole numbers")
    return numbers


def _names(value: object) -> tuple[str, ...]:
    """The names between commas."""
    names = tuple(str(value).split(","))
    if len(set(names)) < len(names) or "" in names:
        raise UserError("not different names")
    return names


Seeds = Annotated[tuple[int, ...], BeforeValidator(_whole_numbers), Expected("different whole numbers between commas")]
Names = Annotated[tuple[str, ...], BeforeValidator(_names), Expected("names between commas")]


class TableOptions(Section):
    """Which runs of which table."""

    table: Literal[1, 2, 3, 4] = Field(description="which table of the paper")
    scale: Scale = Field(default="full", description="the paper's setting, or one for a few hours of two CPU cores")
    seeds: Seeds | None = Field(default=None, description="of every run; null: 1,2,3,4,5")
    networks: Names | None = Field(default=None, description="only these; null: all of the table")
    methods: Names | None = Field(default=None, description="only these; null: all of the network")
    root: Text | None = Field(
        default=None,
        description="folder or tar of the images: data.root of every run; null: the data set's usual place",
    )
    folder: Text | None = Field(default=None, description="where the run folders go; null: runs/table_N_SCALE")
    results: Text = Field(
        default="results", description="folder that the table is written into, as Markdown, CSV and JSON"
    )
    write_only: bool = Field(default=False, description="start nothing; write the table of the runs that have finished")
    try_steps: bool = Field(
        default=False, description="with dry_run: also make the fewest steps of each run, on 16 images"
    )


class ReproduceOptions(LaunchOptions, TableOptions):
    """The table, its runs, and how they are started."""


@dataclass(frozen=True)
class Request:
    """The selected runs, and how they are started.

    Attributes:
        table: 1 to 4; 2 is 1 seed by seed.
        scale: of the settings.
        networks: all of the table.
        runs: that are selected.
        listed: all of the table, which shows those that have finished.
        folder: that holds the runs.
        results: folder of the table.
        launch: how the runs are started.
        write_only: whether only the table is written.
        try_steps: whether a dry run makes a few steps.
    """

    table: int
    scale: Scale
    networks: tuple[Network, ...]
    runs: tuple[TableRun, ...]
    listed: tuple[TableRun, ...]
    folder: Path
    results: Path
    launch: LaunchOptions
    write_only: bool = False
    try_steps: bool = False


def read_request(arguments: Sequence[str]) -> Request:
    """The request that the arguments make.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    options = read_options(ReproduceOptions, arguments)
    table, scale = options.table, options.scale
    runs_of = 1 if table == 2 else table
    networks = NETWORKS[runs_of, scale]
    seeds = options.seeds or SEEDS[scale]
    folder = Path(options.folder or f"runs/table_{runs_of}_{scale}").expanduser()
    if options.root and not options.write_only and not Path(options.root).expanduser().exists():
        raise UserError(f"root: there is no {options.root}: name the folder or tar of the images")
    common = (f"data.root={options.root}",) if options.root else ()
    runs = plan_runs(_selected(networks, options), seeds, scale, folder, common)
    if not runs:
        raise UserError("methods: none of the networks asked for has them; leave methods out, or name other networks")
    if options.try_steps and not options.dry_run:
        raise UserError("try_steps=true has no meaning without dry_run=true: add it, or leave try_steps out")
    listed = plan_runs(networks, sorted({*SEEDS[scale], *seeds, *_seeds_in(folder)}), scale, folder, common)
    return Request(
        table,
        scale,
        networks,
        tuple(runs),
        tuple(listed),
        folder,
        Path(options.results).expanduser(),
        options,
        options.write_only,
        options.try_steps,
    )


def _seeds_in(folder: Path) -> set[int]:
    """The seeds of the runs of earlier calls."""
    numbers = (path.name.rpartition("-seed=")[2] for path in folder.glob("*-seed=*") if path.is_dir())
    return {int(number) for number in numbers if number.isdecimal()}


def _selected(networks: Sequence[Network], options: TableOptions) -> tuple[Network, ...]:
    known = [network.key for network in networks]
    for name in options.networks or ():
        if name not in known:
            raise UserError(f"networks: the table has no {name!r} at this scale; it has {', '.join(known)}")
    for name in options.methods or ():
        if name not in METHODS:
            raise UserError(f"methods: there is no {name!r}; there are {', '.join(METHODS)}")
    wanted = [network for network in networks if network.key in (options.networks or known)]
    if options.methods is None:
        return tuple(wanted)
    methods = options.methods
    return tuple(replace(network, methods=tuple(m for m in network.methods if m in methods)) for network in wanted)
