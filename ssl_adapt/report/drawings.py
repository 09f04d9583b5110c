"""Drawings of cells: inputs on the left, nodes in a row, edges as arrows, changed edges in red."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

from ssl_adapt.adaptation.architecture import Architecture
from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.errors import UserError
from ssl_adapt.report.cell_layout import (
    BOX_HEIGHT,
    HEAD,
    LABEL_PT,
    NODE_PT,
    Arrow,
    CellLayout,
    lay_out_cell,
    text_width,
)
from ssl_adapt.report.drawing_path import SUFFIXES

PLAIN, CHANGED = "#222222", "#cc0000"
COLOURS = {"operation": PLAIN, "original": PLAIN, "identity": "#4f73a6", "none": "#b0b0b0"}
INPUT_FILL, NODE_FILL, NODE_EDGE = "#e4edf8", "#f5f5f3", "#8a97a8"
PAGE_WIDTH, MARGIN, CAPTION_LINE, CAPTION_PT = 16.0, 0.25, 0.18, 9  # all lengths are in inches, and so are the axes
LEGEND = "black: an operation; blue: the identity; dotted: none, which computes nothing; red: changed"


def draw_architecture(
    specs: Sequence[EdgeSpec], architecture: Architecture | None, path: str | Path, *, title: str = ""
) -> Path:
    """Draw the cells of a network with an architecture (None: the original one); see `draw_cells`."""
    return draw_cells(specs, architecture.edges if architecture else {}, path, title=title)


def draw_cells(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], path: str | Path, *, title: str = "") -> Path:
    """Draw every distinct cell of a network into one file, and return its path.

    Args:
        specs: the edges in forward order.
        choices: the choice of each of them, by name; "original" where it is missing.
        path: ends in .svg, .png or .pdf.
        title: above the drawing.

    Raises:
        ValueError: if the path ends in something else, or there are no edges.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"a drawing is a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, got {path}")
    if not specs:
        raise UserError("there is nothing to draw: the list of edges is empty")
    kinds = _distinct_cells(specs, choices)
    labels = {spec.name: change_label(spec, choices.get(spec.name, "original")) for spec in specs}
    layouts = [lay_out_cell(kind.specs, labels) for kind in kinds]
    captions = [_caption(kind, layout.width) for kind, layout in zip(kinds, layouts, strict=True)]
    sizes = [
        (
            max(layout.width, *(text_width(line, CAPTION_PT) * 1.15 for line in caption)),  # bold is wider
            layout.top - layout.bottom + CAPTION_LINE * len(caption),
        )
        for layout, caption in zip(layouts, captions, strict=True)
    ]
    corners, width, height = _arrange(sizes)
    corners = [(x, y + CAPTION_LINE) for x, y in corners]
    height += CAPTION_LINE + (0.4 if title else 0.0)
    figure = Figure(figsize=(width, height))
    axis: Any = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axis.set_axis_off()
    if title:
        axis.text(width / 2, height - 0.3, title, fontsize=13, ha="center", va="center")
    legend = textwrap.fill(LEGEND, max(30, int(width / 0.075)))
    axis.text(MARGIN, 0.08, legend, fontsize=CAPTION_PT - 1, va="bottom", color="#666666")
    for layout, caption, (x, y) in zip(layouts, captions, corners, strict=True):
        _draw_cell(axis, layout, choices, x, y - layout.bottom)
        _write_caption(axis, caption, x, y + layout.top - layout.bottom)
    # keeps text as text, and makes the file reproducible
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cells"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def change_label(spec: EdgeSpec, choice: Choice) -> str:
    """What an edge computes, in words; for a changed edge also what it computed before."""
    return f"{spec.operation} → {choice}" if is_changed(spec, choice) else spec.operation


def is_changed(spec: EdgeSpec, choice: Choice) -> bool:
    """Whether the choice differs from what the plain network has there."""
    return choice not in ("original", spec.kind)


class _DistinctCell(NamedTuple):
    """The edges of a cell, and the paths of all cells that look like it."""

    cell_type: str
    specs: tuple[EdgeSpec, ...]
    cells: list[str]


def _distinct_cells(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice]) -> list[_DistinctCell]:
    """The cells without repetition, in forward order."""
    by_cell: dict[tuple[str, str], list[EdgeSpec]] = {}
    for spec in specs:
        by_cell.setdefault((spec.cell_type, spec.cell), []).append(spec)
    alike: dict[Any, list[str]] = {}
    for (_, cell), edges in by_cell.items():
        looks = tuple((e.source, e.target, change_label(e, choices.get(e.name, "original"))) for e in edges)
        alike.setdefault((edges[0].cell_type, looks), []).append(cell)
    return [_DistinctCell(kind, tuple(by_cell[kind, cells[0]]), cells) for (kind, _), cells in alike.items()]


def _caption(kind: _DistinctCell, width: float) -> list[str]:
    """Lines: the type and number of the cells, then their paths, consecutive ones as layer1.0-2."""
    runs: list[tuple[str, int, int]] = []
    others = []
    for cell in kind.cells:
        stage, _, index = cell.rpartition(".")
        if not index.isdigit():
            others.append(cell or "the whole network")
        elif runs and runs[-1][0] == stage and runs[-1][2] == int(index) - 1:
            runs[-1] = (stage, runs[-1][1], int(index))
        else:
            runs.append((stage, int(index), int(index)))
    names = [f"{stage}.{first}" + (f"-{last}" if last > first else "") for stage, first, last in runs]
    count = f"{len(kind.cells)} cell" + "s" * (len(kind.cells) > 1)
    return [f"{kind.cell_type}, {count}", *textwrap.wrap(", ".join(names + others), max(30, int(width / 0.075)))]


def _arrange(sizes: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], float, float]:
    """The lower left corner of every (width, height) box, in rows from the top, and the size of the page."""
    rows: list[list[int]] = []
    used = PAGE_WIDTH
    for index, (width, _) in enumerate(sizes):
        if used + width + 2 * MARGIN > PAGE_WIDTH:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += width + 2 * MARGIN
    page_width = max(sum(sizes[i][0] + 2 * MARGIN for i in row) for row in rows)
    page_height = sum(max(sizes[i][1] for i in row) + 2 * MARGIN for row in rows)
    corners, top = [(0.0, 0.0)] * len(sizes), page_height
    for row in rows:
        x = MARGIN
        for index in row:
            corners[index] = (x, top - MARGIN - sizes[index][1])
            x += sizes[index][0] + 2 * MARGIN
        top -= max(sizes[i][1] for i in row) + 2 * MARGIN
    return corners, page_width, page_height


def _write_caption(axis: Any, lines: Sequence[str], x: float, y: float) -> None:
    """The lines, the last of them above (x, y)."""
    for index, line in enumerate(reversed(lines)):
        is_first = index == len(lines) - 1
        axis.text(
            x, y + CAPTION_LINE * (index + 0.5), line, fontsize=CAPTION_PT if is_first else CAPTION_PT - 1, va="center",
            weight="bold" if is_first else "normal", color=PLAIN if is_first else "#666666",
        )  # fmt: skip


def _draw_cell(axis: Any, layout: CellLayout, choices: Mapping[str, Choice], x: float, y: float) -> None:
    """A cell whose row of nodes begins at (x, y)."""
    for arrow in layout.arrows:
        _draw_arrow(axis, arrow, choices.get(arrow.spec.name, "original"), x, y)
    for node in layout.nodes:
        left, bottom = x + node.x - node.half_width, y + node.y - BOX_HEIGHT / 2
        box = FancyBboxPatch(
            (left, bottom), 2 * node.half_width, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=INPUT_FILL if node.is_input else NODE_FILL, edgecolor=NODE_EDGE, zorder=4,
        )  # fmt: skip
        axis.add_patch(box)
        name = node.name.rstrip("+")
        axis.text(x + node.x, y + node.y, name, fontsize=NODE_PT, ha="center", va="center_baseline", zorder=5)


def _draw_arrow(axis: Any, arrow: Arrow, choice: Choice, x: float, y: float) -> None:
    now = arrow.spec.kind if choice == "original" else choice
    is_red = is_changed(arrow.spec, choice)
    colour = CHANGED if is_red else COLOURS[now]
    line = arrow.line.transformed(Affine2D().translate(x, y))
    order = 3 if is_red else 1 if now == "none" else 2
    axis.add_patch(
        PathPatch(
            line, fill=False, edgecolor=colour, linewidth=1.2 if now == "identity" else 1.5, capstyle="butt",
            linestyle=(0, (1, 1.5)) if now == "none" else "-", zorder=order,
        )
    )  # fmt: skip
    axis.add_patch(Polygon(_arrowhead(line), facecolor=colour, edgecolor="white", linewidth=0.3, zorder=order))
    axis.text(
        x + arrow.label_at[0], y + arrow.label_at[1], change_label(arrow.spec, choice), color=colour,
        fontsize=LABEL_PT, ha="center", va="center_baseline", zorder=3.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip


def _arrowhead(line: Outline) -> list[tuple[float, float]]:
    """A triangle at the end of a line whose last stretch is level or upright."""
    vertices: Any = line.vertices
    (from_x, from_y), (x, y) = vertices[-2:]
    length = math.hypot(x - from_x, y - from_y)
    ahead_x, ahead_y = HEAD * (x - from_x) / length, HEAD * (y - from_y) / length
    back_x, back_y = x - ahead_x, y - ahead_y
    return [(x, y), (back_x - ahead_y / 3, back_y + ahead_x / 3), (back_x + ahead_y / 3, back_y - ahead_x / 3)]
