"""Drawings of cells into files: pictures, or DOT and Mermaid text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_adapt.adaptation.architecture import Architecture
from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.errors import UserError
from ssl_adapt.report.cell_text import dot_text, mermaid_text
from ssl_adapt.report.drawing_path import CELL_SUFFIXES, listed


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
        path: ends in .svg, .png or .pdf, or for text in .dot or .mmd.
        title: above the drawing.

    Raises:
        ValueError: if the path ends in something else, or there are no edges.
    """
    path = Path(path)
    if path.suffix not in CELL_SUFFIXES:
        raise UserError(f"a drawing is a {listed(CELL_SUFFIXES)} file, got {path}")
    if not specs:
        raise UserError("there is nothing to draw: the list of edges is empty")
    if path.suffix in (".dot", ".mmd"):
        text = (dot_text if path.suffix == ".dot" else mermaid_text)(specs, choices, title)
        path.write_text(text, encoding="utf-8")
        return path
    from ssl_adapt.report.cell_chart import cells_chart  # with altair, which takes half a second to import
    from ssl_adapt.report.chart_file import write_chart

    write_chart(cells_chart(specs, choices, title).to_dict(), path)
    return path
