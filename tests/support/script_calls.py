"""Calls of scripts in this process, and a network and a run folder for them to read."""

import io
import runpy
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import timm
import torch
from checkout import ROOT
from rich.console import Console

import ssl_adapt
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.grid import run_grid
from ssl_adapt.runs.grid_plan import Grid

SCRIPTS = ROOT / "scripts"
SCRIPT_OF = {"pretrain": "pretrain.py", "nat": "nat_search.py"}  # what runs of a grid are started by
PX, MEAN, STD = 16, (0.3, 0.31, 0.32), (0.4, 0.3, 0.2)


class Output(NamedTuple):
    code: object
    out: str
    err: str


def run_script(*arguments: str, script: str = "knn_eval.py") -> Output:
    """What the script prints, and its exit code; it runs in this process, as importing torch anew takes seconds."""
    return _call([script, *arguments], partial(runpy.run_path, str(SCRIPTS / script), run_name="__main__"))


def run_command(name: str, *arguments: str) -> Output:
    """What `python -m ssl_adapt NAME ...` prints, and its exit code; in this process too."""
    return _call(["ssl_adapt", name, *arguments], partial(runpy.run_module, "ssl_adapt", run_name="__main__"))


def _call(argv: list[str], run: Callable[[], object]) -> Output:
    code: object = 0
    with patch("sys.argv", argv), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            run()
        except SystemExit as end:
            code = end.code
    return Output(code, out.getvalue(), err.getvalue())


def run_here(grid: Grid, console: Console) -> None:
    """In the place of the grid's processes, each of which would import torch: the scripts, one after the other."""
    for run in grid.runs:
        if run.state != "finished":
            without = ["run.report=false"] if run.command == "pretrain" else []
            output = run_script(*run.arguments, *without, script=SCRIPT_OF[run.command])
            assert output.code == 0, output.err
    run_grid(grid, console)  # says that nothing is left to do


def create_export(folder: Path) -> Path:
    """The export of a narrow network with one removed operation; its random weights are not those of seed 0."""
    overlay = {"input_size": (3, PX, PX), "mean": MEAN, "std": STD}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        plain = ssl_adapt.Architecture.of(timm.create_model("resnet20", width=8, num_classes=0))
        edge = next(name for name in plain.edges if name.endswith("conv2"))
        architecture = replace(plain, edges={**plain.edges, edge: "identity"})
        network = timm.create_model(
            "resnet20", width=8, num_classes=0, pretrained_cfg_overlay=overlay, architecture=architecture
        )
        network(torch.randn(64, 3, PX, PX))  # BatchNorm's statistics are then not those of a new network
    return ssl_adapt.export_timm(network, folder)


def create_run(folder: Path, export: Path | None, *overrides: str) -> Path:
    folder.mkdir()
    save_recipe(load_recipe(["recipe=debug", *overrides]), folder / "recipe.yaml")
    if export is not None:
        (folder / "export").symlink_to(export)
    return folder
