"""Two architectures of like cells side by side: before and after, what differs in red (the paper's Figures 2-4)."""

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
        ValueError: if they have not the same edges, or one of `after` computes what is neither none, nor the identity,
            nor what `before` has there.
    """
    old, new = as_they_are(before), as_they_are(after)
    if missing := {spec.name for spec in old} ^ {spec.name for spec in new}:
        raise UserError(f"the two networks have not the same edges ({min(missing)!r} is in one alone): name two alike")
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


def as_they_are(model: nn.Module) -> tuple[EdgeSpec, ...]:
    """The edges of a plain or fixed network, with what each computes now for what it computed at first."""
    choices = Architecture.of(model).edges
    return tuple(
        spec
        if choices[spec.name] == "original"
        else replace(spec, kind=cast(Kind, choices[spec.name]), operation=choices[spec.name])
        for spec in map(_in_plain_words, edge_specs(model))
    )


def _in_plain_words(spec: EdgeSpec) -> EdgeSpec:
    """The identity of a genotype is called skip_connect there, whatever it is where the shape changes."""
    return replace(spec, kind="identity", operation="identity") if spec.operation == "skip_connect" else spec


def _marked(spec: EdgeSpec, when: str) -> EdgeSpec:
    return replace(spec, name=f"{when} {spec.name}", cell_type=f"{when}, {spec.cell_type}")
