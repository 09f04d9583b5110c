"""Which edges share one theta, and what sharing rules out."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ssl_adapt.adaptation.architecture import check_edge_names
from ssl_adapt.adaptation.edge import CHOICES, Choice, EdgeSpec, ShapeChange
from ssl_adapt.errors import UserError

Sharing = Literal["full", "cell"]


def group_name(spec: EdgeSpec, sharing: Sharing, shape_change: ShapeChange) -> str:
    """The name of the group of edges with which an edge shares theta."""
    if sharing == "full":
        return spec.name
    lacks_identity = not spec.allows("identity", shape_change)  # other candidates, so another theta
    return f"{spec.cell_type}.{spec.place}" + (".changing" if lacks_identity else "")


def check_cells_agree(specs: Sequence[EdgeSpec], group_of: Mapping[str, str], model: str) -> None:
    """Refuse to share theta between edges that have other operations.

    Raises:
        ValueError: naming the first two that differ.

    Source: the paper, section "Experiments", which runs ProxylessNAS without Cell, as its cells differ.
    """
    first: dict[str, EdgeSpec] = {}
    for spec in specs:
        other = first.setdefault(group_of[spec.name], spec)
        if spec.operation != other.operation or spec.kind != other.kind:
            raise UserError(
                f"sharing='cell' needs cells that are alike, and those of {model} differ: '{other.name}' is "
                f"{other.operation} and '{spec.name}' is {spec.operation}; use sharing='full'"
            )


def check_choices(
    choices: Mapping[str, Choice], specs: Sequence[EdgeSpec], sharing: Sharing, shape_change: ShapeChange
) -> None:
    """Refuse given choices of edges that share theta, that are not there, or that can't become that.

    Raises:
        ValueError: naming the first such edge.
    """
    if sharing != "full":
        raise UserError(
            f"choices are those of single edges, and under sharing={sharing!r} edges share theirs: use 'full'"
        )
    by_name = {spec.name: spec for spec in specs}
    check_edge_names(choices, by_name)
    for name, choice in choices.items():
        if choice not in CHOICES or not by_name[name].allows(choice, shape_change):
            raise UserError(f"{choice!r} is no candidate of edge {name!r}: {', '.join(by_name[name].candidates)}")
