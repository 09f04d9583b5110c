"""Drawings of cells: their nodes in a row, their edges as arcs, changed edges in red."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from ssl_adapt.adaptation.edge import Choice, EdgeSpec

PLAIN, CHANGED, ABSENT = "#222222", "#cc0000", "#b8b8b8"


@dataclass(frozen=True)
class _Drawn:
    """A cell and the cells that look like it."""

    title: str
    specs: tuple[EdgeSpec, ...]


def draw_cells(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], path: str | Path, *, title: str = "") -> Path:
    """Draw every distinct cell of a network into one file, and return its path.

    Args:
        specs: the edges in forward order.
        choices: what each of them became, by name; "original" where it is missing.
        path: ends in .svg, .png or .pdf.
        title: above the drawing.

    Raises:
        ValueError: if the path ends in something else.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"a drawing is a .svg, .png or .pdf file, got {path}")
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    cells = _distinct_cells(specs, choices)
    columns = min(len(cells), 2)
    lines = -(-len(cells) // columns)
    figure = Figure(figsize=(7.5 * columns, 3.6 * lines), layout="constrained")
    axes: Any = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, cell in zip(axes.flat, cells, strict=False):
        _draw_cell(axis, cell, choices)
    if title:
        figure.suptitle(title, fontsize=12)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(path, dpi=150)
    return path


def _distinct_cells(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice]) -> list[_Drawn]:
    """The cells without repetition: of several with the same edges and choices the first stands for all."""
    by_cell: dict[str, list[EdgeSpec]] = {}
    for spec in specs:
        by_cell.setdefault(spec.cell, []).append(spec)
    alike: dict[Any, list[str]] = {}
    for cell, edges in by_cell.items():
        looks = tuple((e.source, e.target, e.operation, choices.get(e.name, "original")) for e in edges)
        alike.setdefault((edges[0].cell_type, looks), []).append(cell)
    drawn = []
    for (cell_type, _), cells in alike.items():
        names = ", ".join(cells[:6]) + (f" and {len(cells) - 6} more" if len(cells) > 6 else "")
        drawn.append(_Drawn(f"{cell_type}: {names}", tuple(by_cell[cells[0]])))
    return drawn


def _nodes(specs: Sequence[EdgeSpec]) -> list[str]:
    """The nodes from left to right: inputs first, then in the order in which edges enter them."""
    targets = dict.fromkeys(spec.target for spec in specs)
    inputs = [node for node in dict.fromkeys(spec.source for spec in specs) if node not in targets]
    return [*inputs, *targets]


def _draw_cell(axis: Any, cell: _Drawn, choices: Mapping[str, Choice]) -> None:
    from matplotlib.patches import FancyArrowPatch

    nodes = _nodes(cell.specs)
    places = {node: float(index) for index, node in enumerate(nodes)}
    heights = _arc_heights(cell.specs, places)
    for spec in cell.specs:
        choice = choices.get(spec.name, "original")
        is_absent = choice == "none" or (choice == "original" and spec.kind == "none")
        colour = CHANGED if choice != "original" else ABSENT if is_absent else PLAIN
        start, end, height = places[spec.source], places[spec.target], heights[spec.name]
        axis.add_patch(
            FancyArrowPatch(
                path=_arc(start, end, height), arrowstyle="-|>", mutation_scale=12, color=colour, linewidth=1.4,
                linestyle=":" if is_absent else "-",
            )
        )  # fmt: skip
        label = spec.operation if choice == "original" else f"{spec.operation} → {choice}"
        axis.text(
            (start + end) / 2, height or 0.14, label, color=colour, fontsize=8, ha="center", va="center", zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    for node, place in places.items():
        axis.text(
            place, 0.0, node, fontsize=9, ha="center", va="center", zorder=4,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "#e8eef7", "edgecolor": "#4a6a9a"},
        )  # fmt: skip
    axis.set_xlim(-0.3, len(nodes) - 0.7)
    axis.set_ylim(min([-0.35, *heights.values()]) - 0.2, max([0.35, *heights.values()]) + 0.2)
    axis.set_title(cell.title, fontsize=9)


def _arc(start: float, end: float, height: float) -> Any:
    """A parabola from node to node, `height` high in the middle, cut off beside the nodes."""
    from matplotlib.path import Path as Outline

    cut = 0.12 / (end - start)
    shares = [cut + (1 - 2 * cut) * step / 40 for step in range(41)]
    return Outline([(start + t * (end - start), 4 * height * t * (1 - t)) for t in shares])


def _arc_heights(specs: Sequence[EdgeSpec], places: Mapping[str, float]) -> dict[str, float]:
    """The height of every arc's middle, where its label sits: straight between neighbours, else above or below.

    Short arcs come first and lie low; a label takes the next height at which it touches no other.
    """
    taken: list[tuple[float, float]] = []  # middle and height of the labels that are there
    heights: dict[str, float] = {}
    for spec in sorted(specs, key=lambda spec: places[spec.target] - places[spec.source]):
        start, end = places[spec.source], places[spec.target]
        lowest = 0.45 * (end - start - 1)
        signs = (1, -1) if len(taken) % 2 else (-1, 1)
        possible = [0.0] if end - start == 1 else []
        possible += [sign * (lowest + 0.3 * step) for step in range(30) for sign in signs if lowest + step]
        middle = (start + end) / 2
        height = next(h for h in possible if all(abs(h - y) >= 0.25 or abs(middle - x) >= 1 for x, y in taken))
        heights[spec.name] = height
        taken.append((middle, height))
    return heights
