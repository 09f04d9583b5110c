"""Drawings of two architectures with the same edges, before and after, differences in red (the paper's Figures 2-4)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import nn

from ssl_adapt.adaptation.architecture import Architecture, edge_specs
from ssl_adapt.adaptation.edge import CHOICES, Choice, EdgeSpec, Kind
from ssl_adapt.errors import UserError
from ssl_adapt.report.drawings import draw_cells


def draw_comparison(before: nn.Module, after: nn.Module, paths: Sequence[Path], *, title: str = "") -> int:
    """Draw the distinct cells of both networks into each of the files; the number of edges that differ.

    Raises:
        ValueError: if their edges are not the same, or an edge of `after` is neither none, nor the identity, nor
            what `before` has there.
    """
    old, new = current_edges(before), current_edges(after)
    if missing := {spec.name for spec in old} ^ {spec.name for spec in new}:
        raise UserError(
            f"the networks must have the same edges, and only one has {min(missing)!r}: name two with the same cells"
        )
    now = {spec.name: spec for spec in new}
    choices: dict[str, Choice] = {}
    for spec in old:
        other = now[spec.name]
        if other.operation == spec.operation:
            continue
        if other.kind not in CHOICES:
            raise UserError(
                f"edge {spec.name!r} is {spec.operation} before and {other.operation} after: "
                "an adapted edge is none, the identity, or what it was"
            )
        choices[spec.name] = cast(Choice, other.kind)
    shown = [_marked(spec, "before") for spec in old] + [_marked(spec, "after") for spec in old]
    marked = {f"after {name}": choice for name, choice in choices.items()}
    for path in paths:
        draw_cells(shown, marked, path, title=title)
    return len(choices)


def current_edges(model: nn.Module) -> tuple[EdgeSpec, ...]:
    """The edges of a plain or fixed network, with the operation that each computes now."""
    choices = Architecture.of(model).edges
    return tuple(
        spec
        if choices[spec.name] == "original"
        else replace(spec, kind=cast(Kind, choices[spec.name]), operation=choices[spec.name])
        for spec in map(_name_identity, edge_specs(model))
    )


def _name_identity(spec: EdgeSpec) -> EdgeSpec:
    """The edge with a genotype's skip_connect named identity, also where it changes the shape."""
    return replace(spec, kind="identity", operation="identity") if spec.operation == "skip_connect" else spec


def _marked(spec: EdgeSpec, when: str) -> EdgeSpec:
    return replace(spec, name=f"{when} {spec.name}", cell_type=f"{when}, {spec.cell_type}")
