"""Plots of theta over the steps of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from ssl_adapt.adaptation.architecture import edge_specs
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import load_recipe
from ssl_adapt.report.drawings import CHANGED
from ssl_adapt.training.objective import create_backbone

ENTRIES = {1: "theta_id", 2: "theta_same"}
OTHERS = {"none": ("#4f73a6", "a none edge that stayed none"), "": ("#b6bec8", "another edge that stayed")}


def draw_theta(run: Path, paths: Sequence[Path]) -> int:
    """Plot theta of every edge over the steps of a run into each of the files; the number of points in time.

    Edges that changed at the fix are red, and its step is marked, as is the threshold of none edges.
    theta_none is left out, as it has no gradient.

    Raises:
        ValueError: if the folder is not that of a run whose architecture adapted.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"theta={run}: there is no metrics.jsonl in it; name the folder of a run")
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = {event["step"]: event["theta"] for event in events if event["event"] in ("theta", "fix")}
    recipe = load_recipe([f"recipe={run / 'recipe.yaml'}"])
    if not points or recipe.adapt is None:
        raise UserError(f"theta={run}: the architecture of this run did not adapt; name one with an `adapt` section")
    fix = next((event for event in events if event["event"] == "fix"), None)
    changed = fix["changed"] if fix else {}
    start = next((event for event in events if event["event"] == "weights"), None)
    model = recipe.model.model_copy(update=start["model"]) if start else recipe.model  # of an adapted network its edges
    with torch.device("meta"):
        backbone = create_backbone(model, recipe.data, recipe.adapt, num_classes=2)
    kinds = {spec.name: spec.kind for spec in edge_specs(backbone)}
    edges = next(iter(points.values()))
    changed = {edge: choice for edge, choice in changed.items() if edge in edges}  # not those of an earlier run
    looks = {edge: OTHERS["none" if kinds[edge] == "none" else ""] for edge in edges}
    has_threshold = recipe.adapt.none_rule == "threshold" and "none" in kinds.values() and not recipe.adapt.choices
    looks |= dict.fromkeys(changed, (CHANGED, "changed"))
    steps = sorted(points)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    for axis, (entry, name) in zip(axes, ENTRIES.items(), strict=True):
        for edge in sorted(looks, key=lambda edge: edge in changed):  # changed ones above the others
            colour, label = looks[edge]
            axis.plot(steps, [points[step][edge][entry] for step in steps], color=colour, linewidth=1, label=label)
        if fix:
            axis.axvline(fix["step"], color="black", linewidth=0.8, linestyle=":", label="the fix")
        if name == "theta_id" and has_threshold:
            label = "threshold of none edges"
            axis.axhline(recipe.adapt.none_threshold, color="black", linewidth=0.8, linestyle="--", label=label)
        axis.set(xlabel="step", ylabel=name)
        axis.spines[["top", "right"]].set_visible(False)
    shown = {label: line for line, label in zip(*axes[0].get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown), frameon=False)
    count = f"{len(looks)} edges" + (f", {len(changed)} changed at step {fix['step']:,}" if fix else "")
    figure.suptitle(f"{run.resolve().name}: {count}")
    for file in paths:
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "theta"}):
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    return len(steps)
