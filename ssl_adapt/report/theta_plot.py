"""Theta over time: how each edge came to its choice."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from ssl_adapt.report.drawings import CHANGED

ENTRIES = {1: "identity", 2: "same"}
UNCHANGED = "#9aa7b5"


def draw_theta(run: Path, paths: Sequence[Path]) -> int:
    """Plot theta of every edge over the steps of a run into each of the files; the number of points in time.

    Edges that changed at the fix are red, and its moment is marked. theta_none is left out, as it has no gradient.

    Raises:
        ValueError: if the folder is not that of a run whose architecture adapted.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"theta={run}: there is no metrics.jsonl in it; name the folder of a run")
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = {event["step"]: event["theta"] for event in events if event["event"] in ("theta", "fix")}
    if not points:
        raise ValueError(f"theta={run}: the architecture of this run did not adapt; name one with an `adapt` section")
    fix = next((event for event in events if event["event"] == "fix"), None)
    changed = fix["changed"] if fix else {}
    edges = list(next(iter(points.values())))
    steps = sorted(points)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    for axis, (entry, name) in zip(axes, ENTRIES.items(), strict=True):
        for edge in sorted(edges, key=lambda edge: edge in changed):  # changed ones above the others
            colour, width = (CHANGED, 1.2) if edge in changed else (UNCHANGED, 0.8)
            axis.plot(steps, [points[step][edge][entry] for step in steps], color=colour, linewidth=width)
        axis.axhline(0, color="black", linewidth=0.5)
        if fix:
            axis.axvline(fix["step"], color="black", linewidth=0.8, linestyle=":")
        axis.set(xlabel="step", title=f"theta {name}")
        axis.spines[["top", "right"]].set_visible(False)
    title = (
        f"{len(edges)} edges, {len(changed)} changed (red) at step {fix['step']:,}" if fix else f"{len(edges)} edges"
    )
    figure.suptitle(title)
    for file in paths:
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "theta"}):
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    return len(steps)
