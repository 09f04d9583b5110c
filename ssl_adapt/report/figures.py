"""The figures that `ssl-adapt report` draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_adapt.report.comparison import draw_comparison
from ssl_adapt.report.inspection import load_for_inspection
from ssl_adapt.report.theta_plot import draw_theta


def draw_report(given: Mapping[str, Any]) -> list[str]:
    """Draw the figures that the keys of `ssl-adapt report` name; returns a line for each.

    Raises:
        ValueError: a network or run does not exist.
    """
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
