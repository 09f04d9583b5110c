"""The command line of `scripts/reproduce.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from reproduction.runs import TableRun, plan_runs
from reproduction.systems import METHODS, NETWORKS, SEEDS, Network, Scale
from ssl_adapt.arguments import TEXT, TRUE_OR_FALSE, Key, Kind, describe_keys, one_of, read_arguments
from ssl_adapt.errors import UserError
from ssl_adapt.runs.grid_plan import GRID_KEYS

USAGE = """\
usage: python scripts/reproduce.py table=1|2|3|4 [KEY=VALUE ...]

Runs what a table of the paper compares and writes the table, with the paper's own numbers beside it:
  python scripts/reproduce.py table=1 scale=cpu root=cifar10.tar jobs=2 networks=resnet20_nat seeds=1,2
Finished runs are skipped, and others go on where they stopped. Table 2 is Table 1 seed by seed, and the same runs.
"""


def _whole_numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ValueError
    return numbers


def _words(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    if len(set(words)) < len(words) or "" in words:
        raise ValueError
    return words


KEYS = {
    "table": Key(one_of(("1", "2", "3", "4")), "which table of the paper", None),
    "scale": Key(one_of(("full", "cpu")), "the paper's setting, or one for a few hours of two CPU cores", "full"),
    "seeds": Key(Kind("different whole numbers between commas", _whole_numbers), "of every run", "1,2,3,4,5"),
    "networks": Key(Kind("names between commas", _words), "only these", "all of the table"),
    "methods": Key(Kind("names between commas", _words), "only these", "all of the network"),
    "root": Key(TEXT, "folder or tar of the images: data.root of every run", "the data set's usual place"),
    "folder": Key(TEXT, "where the run folders go", "runs/table_N_SCALE"),
    "results": Key(TEXT, "folder that the table is written into, as Markdown, CSV and JSON", "results"),
    "write_only": Key(TRUE_OR_FALSE, "start nothing; write the table of the runs that have finished", "false"),
    "try_steps": Key(TRUE_OR_FALSE, "with dry_run: also make the fewest steps of each run, on 16 images", "false"),
    **{name: key for name, key in GRID_KEYS.items() if name != "folder"},
}
HELP = describe_keys(USAGE, {f"{name} ": key for name, key in KEYS.items()})


@dataclass(frozen=True)
class Request:
    """What was asked for: the runs, and how to work them off.

    Attributes:
        table: 1 to 4; 2 is 1 seed by seed.
        scale: of the settings.
        networks: all of the table.
        runs: those that were asked for.
        listed: all of the table, of which it shows those that have finished.
        folder: that holds the runs.
        results: folder of the table.
        grid: values of GRID_KEYS.
        options: "write_only" and "try_steps", where given.
    """

    table: int
    scale: Scale
    networks: tuple[Network, ...]
    runs: tuple[TableRun, ...]
    listed: tuple[TableRun, ...]
    folder: Path
    results: Path
    grid: dict[str, Any]
    options: dict[str, Any]


def read_request(arguments: Sequence[str]) -> Request:
    """The request that the arguments make.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    given = read_arguments(arguments, KEYS)
    table, scale = int(given["table"]), cast(Scale, given.get("scale", "full"))
    runs_of = 1 if table == 2 else table
    networks = NETWORKS[runs_of, scale]
    seeds = given.get("seeds", SEEDS[scale])
    folder = Path(given.get("folder", f"runs/table_{runs_of}_{scale}")).expanduser()
    if "root" in given and not given.get("write_only") and not Path(given["root"]).expanduser().exists():
        raise UserError(f"root: there is no {given['root']}: name the folder or tar of the images")
    common = (f"data.root={given['root']}",) if "root" in given else ()
    runs = plan_runs(_selected(networks, given), seeds, scale, folder, common)
    if not runs:
        raise UserError("methods: none of the networks asked for has them; leave methods out, or name other networks")
    if given.get("try_steps") and not given.get("dry_run"):
        raise UserError("try_steps=true has no meaning without dry_run=true: add it, or leave try_steps out")
    listed = plan_runs(networks, sorted({*SEEDS[scale], *seeds, *_seeds_in(folder)}), scale, folder, common)
    return Request(
        table,
        scale,
        networks,
        tuple(runs),
        tuple(listed),
        folder,
        Path(given.get("results", "results")).expanduser(),
        {name: value for name, value in given.items() if name in GRID_KEYS},
        {name: given.get(name, False) for name in ("write_only", "try_steps")},
    )


def _seeds_in(folder: Path) -> set[int]:
    """The seeds of the runs that earlier calls have left."""
    numbers = (path.name.rpartition("-seed=")[2] for path in folder.glob("*-seed=*") if path.is_dir())
    return {int(number) for number in numbers if number.isdecimal()}


def _selected(networks: Sequence[Network], given: dict[str, Any]) -> tuple[Network, ...]:
    known = [network.key for network in networks]
    for name in given.get("networks", ()):
        if name not in known:
            raise UserError(f"networks: the table has no {name!r} at this scale; it has {', '.join(known)}")
    for name in given.get("methods", ()):
        if name not in METHODS:
            raise UserError(f"methods: there is no {name!r}; there are {', '.join(METHODS)}")
    wanted = [network for network in networks if network.key in given.get("networks", known)]
    if "methods" not in given:
        return tuple(wanted)
    return tuple(
        replace(network, methods=tuple(m for m in network.methods if m in given["methods"])) for network in wanted
    )
