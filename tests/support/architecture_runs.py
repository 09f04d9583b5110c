"""Folders of runs as adaptation leaves them, written by hand: networks of three cells, theta and scores as given."""

import json
from pathlib import Path

import timm

from ssl_adapt import Architecture, load_recipe
from ssl_adapt.adaptation.edge import Choice
from ssl_adapt.recipe import save_recipe
from ssl_adapt.runs.run_record import RunRecord, read_run

CELLS = {"channels": 4, "cells": 3}
NAMES = [spec.name for spec in timm.create_model("resnet20_nat", **CELLS).edge_specs()]
SKIP, CONV = "layer1.0.edge_0_2", "layer2.0.edge_2_3"  # a none edge and an operation


def recorded_run(
    folder: Path, *arguments: str, events: list[dict], changed: dict[str, Choice] | None = None
) -> RunRecord:
    """The record of a run with these events; `changed` is what its architecture.json says, None: there is none."""
    folder.mkdir()
    cells = ["model.name=resnet20_nat", "model.args={channels: 4, cells: 3}"]
    model = [] if any(argument.startswith("model.") for argument in arguments) else cells
    save_recipe(load_recipe(["recipe=debug", *model, *arguments]), folder / "recipe.yaml")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    if changed is not None:
        recipe = load_recipe([f"recipe={folder / 'recipe.yaml'}"])
        model_args = dict(recipe.model.args)
        network = timm.create_model(recipe.model.name, **model_args)
        edges = {spec.name: changed.get(spec.name, "original") for spec in network.edge_specs()}
        (folder / "architecture.json").write_text(Architecture(recipe.model.name, model_args, edges).to_json())
    return read_run(folder)


def theta_events(*steps: int, skip: float = 0.1, conv: float = -0.2) -> list[dict]:
    """Theta at these steps: that of two edges moves, the others rest."""
    events = []
    for index, step in enumerate(steps, start=1):
        theta = {name: [0.0, 0.0, 1.0] for name in NAMES}
        theta[SKIP] = [0.0, skip * index, 1.0]
        theta[CONV] = [0.0, 0.0, 1.0 + conv * index]
        events.append({"event": "theta", "step": step, "theta": theta})
    return events


def theta_run(folder: Path, *arguments: str) -> RunRecord:
    """A run in which a skip was added and a convolution taken away at step 40."""
    changed: dict[str, Choice] = {SKIP: "identity", CONV: "none"}
    *events, last = theta_events(10, 20, 30, 40, skip=0.1, conv=-0.3)
    fix = {**last, "event": "fix", "changed": changed, "parameters": 1, "macs": 1}
    return recorded_run(folder, *arguments, events=[*events, fix], changed=changed)
