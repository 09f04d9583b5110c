"""The results of the runs: one record each, read from its folder."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.table_runs import TableRun
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import load_recipe
from ssl_adapt.runs.same_recipe import check_same


@dataclass(frozen=True)
class Record:
    """The result of a run.

    Attributes:
        network: key of the network.
        method: key of the method.
        seed: of the run.
        accuracy: on the test images after the last epoch, in %: the classifier's, or that of kNN.
        before_fix: the same just before the fix; None without one.
        after_fix: just after it.
        recalibrated: just after it, with BatchNorm's statistics measured anew.
        hours: of training, evaluations aside; NAT's search included.
        changed: edge -> what it became.
        parameters: of the trained network.
        macs: multiply-adds for one image.
    """

    network: str
    method: str
    seed: int
    accuracy: float
    before_fix: float | None
    after_fix: float | None
    recalibrated: float | None
    hours: float
    changed: Mapping[str, str]
    parameters: int
    macs: int


def read_record(run: TableRun) -> Record | None:
    """The record of a run; None if it has not finished.

    Raises:
        ValueError: if its files are not those of a finished run, or it was made with other values than the table's.
    """
    path = run.path / "result.json"
    if run.grid_state() != "finished" or not path.is_file():
        return None
    recipe = load_recipe(run.grid_run().arguments)
    try:
        check_same(load_recipe([f"recipe={run.path / 'recipe.yaml'}"]), recipe, recipe.train.epochs)
    except ValueError as error:
        reason = str(error).partition("; go on")[0]
        raise UserError(f"{reason}; remove that folder, or name another one for all runs, folder=") from None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        scores = next(value for key, value in result.items() if key.endswith("_top1"))
        seconds = _training_seconds(run.path / "metrics.jsonl")
        if run.method.how == "nat":
            seconds += json.loads(run.search_path.read_text(encoding="utf-8"))["seconds"]
    except (KeyError, StopIteration, ValueError) as error:
        raise UserError(
            f"{run.path} is not the folder of a finished run ({error!r}): remove it and run again"
        ) from None
    before, after, recalibrated = (
        100 * scores[name] if name in scores else None for name in ("before_fix", "after_fix", "recalibrated")
    )
    return Record(
        run.network.key,
        run.method.key,
        run.seed,
        100 * scores["result"],
        before,
        after,
        recalibrated,
        seconds / 3600,
        result["changed"],
        result["parameters"],
        result["macs"],
    )


def commit_of_checkout() -> str:
    """The short hash of the checkout's commit, with "+" where files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).parents[1]
    try:
        name = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip()


def _training_seconds(metrics: Path) -> float:
    """The training time of all epochs, without evaluations; steps that a killed run repeated count once."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return float(sum(event["seconds"] for event in map(json.loads, lines) if event["event"] == "epoch"))
