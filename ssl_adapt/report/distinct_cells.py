"""The cells of a network without repetition, and what is said of them in words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.backbones.adaptable import NAME as ADAPTABLE


class DistinctCell(NamedTuple):
    """The edges of a cell, and the paths of all cells that look like it."""

    cell_type: str
    specs: tuple[EdgeSpec, ...]
    cells: list[str]

    @property
    def how_many(self) -> str:
        """The number of the cells, in words."""
        return f"{len(self.cells)} cell" + "s" * (len(self.cells) > 1)


def distinct_cells(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice]) -> list[DistinctCell]:
    """The cells without repetition, in forward order."""
    by_cell: dict[tuple[str, str], list[EdgeSpec]] = {}
    for spec in specs:
        by_cell.setdefault((spec.cell_type, spec.cell), []).append(spec)
    alike: dict[Any, list[str]] = {}
    for (_, cell), edges in by_cell.items():
        looks = tuple((e.source, e.target, change_label(e, choices.get(e.name, "original"))) for e in edges)
        alike.setdefault((edges[0].cell_type, looks), []).append(cell)
    return [DistinctCell(kind, tuple(by_cell[kind, cells[0]]), cells) for (kind, _), cells in alike.items()]


def are_in_a_row(model: str, specs: Sequence[EdgeSpec]) -> bool:
    """Whether no node lies between edges, as they are blocks or branches that follow one another.

    Args:
        model: the network's name, as in its architecture.
        specs: its edges.
    """
    return model == ADAPTABLE or all(spec.target == f"{spec.source}+1" for spec in specs)


def drawn_one_by_one(model: str, specs: Sequence[EdgeSpec]) -> tuple[EdgeSpec, ...]:
    """The edges as they are drawn: each a cell of its own if they are in a row."""
    if not are_in_a_row(model, specs):
        return tuple(specs)
    return tuple(replace(spec, cell=spec.name, source="in", target="out") for spec in specs)


def change_label(spec: EdgeSpec, choice: Choice) -> str:
    """What an edge computes, in words; for a changed edge also what it computed before."""
    return f"{spec.operation} → {choice}" if is_changed(spec, choice) else spec.operation


def is_changed(spec: EdgeSpec, choice: Choice) -> bool:
    """Whether the choice differs from what the plain network has there."""
    return choice not in ("original", spec.kind)


def cell_names(cells: Sequence[str]) -> str:
    """The paths of cells, consecutive ones as layer1.0-2 or blocks.0-5.mlp."""
    runs: list[tuple[str, int, int, str]] = []
    others = []
    for cell in cells:
        numbered = re.fullmatch(r"(.*\.)(\d+)(\.\D*)?", cell)
        if numbered is None:
            others.append(cell or "the whole network")
            continue
        start, index, end = numbered[1], int(numbered[2]), numbered[3] or ""
        if runs and (runs[-1][0], runs[-1][2], runs[-1][3]) == (start, index - 1, end):
            runs[-1] = (start, runs[-1][1], index, end)
        else:
            runs.append((start, index, index, end))
    names = [f"{start}{first}" + (f"-{last}" if last > first else "") + end for start, first, last, end in runs]
    return ", ".join(names + others)
