"""What a run cost: the network before and after, and where the time went."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ssl_adapt.adaptation.architecture import Architecture
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.errors import UserError
from ssl_adapt.export.check import build_on_meta
from ssl_adapt.json_text import read_json, read_text
from ssl_adapt.runs.run_record import RunRecord

PARTS = {  # of a step, as metrics.jsonl names them
    "data": "waiting for images",
    "views": "views",
    "weights": "weights",
    "theta": "theta",
}


class NetworkCost(NamedTuple):
    """Parameters, and multiply-adds for one image."""

    parameters: int
    macs: int


def read_export_config(folder: Path) -> Mapping[str, Any]:
    """`config.json` of the run's export; empty if it is not exported yet."""
    path = folder / "export" / "config.json"
    config = read_json(read_text(path, str(path)), str(path)) if path.is_file() else {}
    return config if isinstance(config, dict) else {}


def final_cost(run: RunRecord) -> NetworkCost | None:
    """Of the network that the run ended with, or fixed; None before that."""
    return _recorded_cost(run.result) or _recorded_cost(run.last("fix") or {})


def first_cost(run: RunRecord) -> NetworkCost | None:
    """Of the network that the run began with; None if that can't be told."""
    return next((_recorded_cost(event) for event in run.of("start") if event["step"] == 0), None) or _plain_cost(run)


def _recorded_cost(values: Mapping[str, Any]) -> NetworkCost | None:
    parameters, macs = values.get("parameters"), values.get("macs")
    return NetworkCost(parameters, macs) if isinstance(parameters, int) and isinstance(macs, int) else None


def _plain_cost(run: RunRecord) -> NetworkCost | None:
    """Of the network without its changes, for runs that did not record it; None if it has none, or can't be told."""
    architecture, config = read_architecture(run.folder), read_export_config(run.folder)
    if architecture is None or not architecture.changed or not isinstance(config.get("num_classes"), int):
        return None
    size = (3, run.recipe.data.image_px, run.recipe.data.image_px)
    arguments = {"num_classes": config["num_classes"], "pretrained_cfg_overlay": {"input_size": size}}
    try:
        network = build_on_meta(architecture.model, {**arguments, **architecture.model_args})
    except UserError:  # of a release, or of a user's own file, that is not there any more
        return None
    return NetworkCost(count_parameters(network), count_macs(network, torch.zeros(1, *size)))


def read_architecture(folder: Path) -> Architecture | None:
    """`architecture.json` of the run; None before its first fix, and without adaptation."""
    path = folder / "architecture.json"
    return Architecture.from_json(read_text(path, str(path))) if path.is_file() else None


def seconds_by_part(run: RunRecord) -> dict[str, float]:
    """Where the time went, in seconds: the parts of a step, estimated from the steps that were timed, and evaluation.

    Empty for a run that did not time its steps.
    """
    timed = [event["ms"] for event in run.of("step") if isinstance(event.get("ms"), dict)]
    sums = {name: sum(ms.get(part, 0.0) for ms in timed) for part, name in PARTS.items()}
    whole = sum(sums.values())
    if not whole:
        return {}
    seconds = {name: run.seconds * part / whole for name, part in sums.items() if part}
    evaluation = evaluation_seconds(run)
    return {**seconds, "evaluation": evaluation} if evaluation else seconds


def evaluation_seconds(run: RunRecord) -> float:
    """The time of all evaluations: those until the last epoch's end, and those after it; 0 if it was not measured."""
    total = 0.0
    for event in run.events:
        if event["event"] == "epoch":
            total = event.get("evaluation_seconds", 0.0)
        elif event["event"] in ("result", "unaveraged"):
            total += event.get("seconds", 0.0)
    return float(total)
