"""What `scripts/report.py` is told, and the figures that it draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_adapt.arguments import TEXT, Key
from ssl_adapt.report.comparison import draw_comparison
from ssl_adapt.report.inspection import DRAWING, load_for_inspection
from ssl_adapt.report.theta_plot import draw_theta

REPORT_USAGE = """\
usage: python scripts/report.py before=NETWORK after=NETWORK drawing=FILE
       python scripts/report.py theta=RUN plot=FILE

Draws the cells of two networks side by side, with what differs in red, and how theta moved in a run. A network is a
name that timm knows, the folder of a run or an export, or an architecture.json:
  before=resnet20_nat after=runs/adapted drawing=figures/        theta=runs/adapted plot=theta.svg
"""
REPORT_KEYS = {
    "before": Key(TEXT, "the network before", "none"),
    "after": Key(TEXT, "the network after", "none"),
    "drawing": Key(DRAWING, "of both: this file, or cells.svg and cells.png in this folder", "none"),
    "theta": Key(TEXT, "folder of a run", "none"),
    "plot": Key(DRAWING, "of its theta over time: this file, or theta.svg and theta.png in this folder", "none"),
}


def draw_report(given: Mapping[str, Any]) -> list[str]:
    """Draw what was asked for; a line for each figure.

    Raises:
        ValueError: keys that belong together were not given together, or a network or run is not there.
    """
    for together in (("before", "after", "drawing"), ("theta", "plot")):
        if missing := [key for key in together if key not in given and any(other in given for other in together)]:
            raise ValueError(f"{missing[0]} is missing: add {missing[0]}=VALUE, {REPORT_KEYS[missing[0]].meaning}")
    lines = []
    if "drawing" in given:
        before, after = (load_for_inspection({"model": given[key]})[0] for key in ("before", "after"))
        files = _files(given["drawing"], "cells")
        title = " → ".join(Path(given[key]).name for key in ("before", "after"))
        count = draw_comparison(before, after, files, title=title)
        lines.append(f"{count} edges differ: {', '.join(map(str, files))}")
    if "plot" in given:
        files = _files(given["plot"], "theta")
        count = draw_theta(Path(given["theta"]).expanduser(), files)
        lines.append(f"theta at {count} points in time: {', '.join(map(str, files))}")
    return lines


def _files(path: Path, stem: str) -> list[Path]:
    return [path / f"{stem}.svg", path / f"{stem}.png"] if path.is_dir() else [path]
