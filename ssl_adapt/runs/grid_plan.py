"""The plan of a grid: the name, the folder and the checked arguments of every run."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.recipe.keys import schema_keys
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, Text
from ssl_adapt.runs.same_recipe import check_same

_MAX_NAME = 150


class SlurmSection(Section):
    """The resources of a run on Slurm."""

    partition: Text | None = Field(default=None, description="Slurm's partition; null: the cluster's")
    time_min: Count = Field(default=1440, description="minutes after which a run is saved and queued again")
    gpus: Count | None = Field(default=None, description="GPUs of a run")
    cpus: Count | None = Field(default=None, description="CPU cores of a run; null: the cluster's")
    mem_gb: Count | None = Field(default=None, description="memory of a run in GB; null: the cluster's")
    account: Text | None = Field(default=None, description="account that is charged; null: the cluster's")
    qos: Text | None = Field(default=None, description="quality of service; null: the cluster's")
    constraint: Text | None = Field(default=None, description="features that the machine must have")


class LaunchOptions(Section):
    """How runs are started."""

    executor: Literal["local", "slurm"] = Field(
        default="local", description="where the runs start: on this machine, or on Slurm"
    )
    processes: Count = Field(default=1, description="processes of each run, all on one machine")
    jobs: Count = Field(default=1, description="runs at a time")
    dry_run: bool = Field(default=False, description="check everything, show the runs and start none")
    slurm: SlurmSection = Field(default=SlurmSection(), description="with executor=slurm")


class GridOptions(LaunchOptions):
    """The keys of a grid beside those of its recipes."""

    folder: Text | None = Field(
        default=None, description="where the run folders go, each named after what varies; null: runs/grid_RECIPE"
    )


@dataclass(frozen=True)
class GridRun:
    """One combination: the name of its folder, the folder, and the command with its arguments.

    `product` is the file that a command other than pretrain writes at its end.
    """

    name: str
    path: Path
    arguments: tuple[str, ...]
    command: str = "pretrain"
    product: Path | None = None

    @property
    def state(self) -> str:
        """The state in the run's `status.json`; "-" before there is one."""
        if self.product is not None:
            return "finished" if self.product.is_file() else "-"
        return str(read_json_file(self.path / "status.json").get("state", "-"))


@dataclass(frozen=True)
class Grid:
    """The runs, all checked, and how they are started."""

    folder: Path
    runs: tuple[GridRun, ...]
    launch: LaunchOptions


def split_values(text: str) -> list[str]:
    """The values between the commas that are in no brackets and no quotes."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth <= 0:
            values.append("")
            continue
        values[-1] += character
    return values


def plan_grid(arguments: Sequence[str]) -> Grid:
    """The grid that `recipe=NAME[,NAME] key=value[,value...] ...` describes; nothing is created.

    Raises:
        ValueError: an argument, or the recipe of any of the runs is wrong, or a folder holds a run with another
            recipe; a line for each problem says what to type.
    """
    keys = schema_keys(GridOptions)
    own = [a for a in arguments if a.partition("=")[0] in keys or a.startswith("slurm.")]
    options = read_options(GridOptions, own)
    choices: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if argument in own:
            continue
        if not equals:
            raise UserError(f"argument {argument!r} has no '=': type key=value; --help lists the grid's own keys")
        if name in choices:
            raise UserError(f"{name!r} is given twice: separate its values by commas, as in seed=0,1")
        if name in ("run.dir", "run.resume"):
            raise UserError(f"{name} is set for each run of a grid: leave it out; folder=FOLDER says where they go")
        choices[name] = split_values(text)
        if len(set(choices[name])) < len(choices[name]):
            raise UserError(f"{argument!r} has a value twice: keep one of them")
    recipes = choices.get("recipe", [])
    folder = Path(options.folder or f"runs/grid_{'_'.join(_safe(Path(recipe).stem) for recipe in recipes)}")
    combinations = itertools.product(*([(name, value) for value in values] for name, values in choices.items()))
    varied = [name for name, values in choices.items() if len(values) > 1 and name != "recipe"]
    runs = tuple(_create_run(folder.expanduser(), dict(combination), varied) for combination in combinations)
    _check(runs)
    return Grid(folder.expanduser(), runs, options)


def read_json_file(path: Path) -> dict[str, Any]:
    """The object in the file; empty where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _create_run(folder: Path, values: Mapping[str, str], varied: Sequence[str]) -> GridRun:
    stem = Path(values.get("recipe", "")).stem
    name = _safe("-".join([stem, *(f"{key}={values[key]}" for key in varied)]))
    path = folder / name
    own = [f"run.dir={json.dumps(str(path), ensure_ascii=False)}", "run.resume=auto"]
    return GridRun(name, path, (*(f"{key}={value}" for key, value in values.items()), *own))


def _safe(text: str) -> str:
    """The text as a file name; a changed one gets a hash, so that different texts have different names."""
    safe = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", text)[:_MAX_NAME]
    return safe if safe == text else f"{safe.strip('_')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _check(runs: Sequence[GridRun]) -> None:
    problems: list[str] = []
    for run in runs:
        try:
            recipe = load_recipe(run.arguments)
            if (run.path / "recipe.yaml").is_file():
                check_same(_recipe_of(run), recipe, recipe.train.epochs)
        except ValueError as error:
            problems += str(error).splitlines()
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        problems.append("two recipes have the same file name: start a grid for each, with another folder=FOLDER")
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def _recipe_of(run: GridRun) -> Recipe:
    return load_recipe([f"recipe={run.path / 'recipe.yaml'}"])
