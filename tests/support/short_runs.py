"""Runs of a few seconds on the embedded digits, and what they leave."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file

from ssl_adapt import load_recipe, pretrain
from ssl_adapt.runs.checkpoint import Checkpoint, Checkpoints

TINY = [
    "recipe=debug", "data.image_px=8", "model.args={width: 4, layers: [1, 2]}", "data.batch_size=128",
    "knn.every_epochs=0",
]  # fmt: skip

CLOCKED = ("images_per_sec", "seconds", "evaluation_seconds", "ms")

SUPERVISED = [
    "recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "data.batch_size=128", "train.epochs=3",
    "model.args={width: 4, layers: [1, 2]}", "views.pad_px=1", "adapt.epochs=1", "adapt.theta_lr=0.1",
]  # fmt: skip


def run(folder: Path, *arguments: str, base: list[str] = TINY) -> Path | None:
    overridden = {argument.partition("=")[0] for argument in arguments}
    kept = [argument for argument in base if argument.partition("=")[0] not in overridden]
    return pretrain(load_recipe([*kept, f"run.dir={folder}", *arguments]))


def run_in_parts(go: Callable[..., Path | None], stops: Iterable[int]) -> None:
    """A run by `go(*arguments)` that stops after each of these epochs, and goes on from there; then to its end."""
    for stop in stops:
        assert go(f"run.stop_after_epochs={stop}", "run.resume=auto") is None
    assert go("run.resume=auto") is not None


def events(folder: Path, name: str | None = None) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if name in (None, line["event"])]


def timeless_events(folder: Path) -> list[dict]:
    """The events without what a clock or a machine says: the same in a run that was stopped and went on."""
    return [timeless(event) for event in events(folder) if event["event"] != "start"]


def timeless(event: dict) -> dict:
    return {key: value for key, value in event.items() if key not in CLOCKED}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "export" / "model.safetensors")


def load_checkpoint(folder: Path) -> Checkpoint:
    found = Checkpoints(folder / "checkpoints", keep=1).load_newest()
    assert found is not None
    return found


def status(folder: Path) -> tuple[str, str | None]:
    found = json.loads((folder / "status.json").read_text())
    assert found["pid"] == os.getpid()
    return found["state"], found["reason"]


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert list(a) == list(b)
    assert len(a) > 10
    assert all(torch.equal(a[name], b[name]) for name in a)
