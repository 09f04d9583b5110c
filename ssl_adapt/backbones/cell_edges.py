"""The edges that a cell has, or is, as plain data."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ssl_adapt.adaptation.edge import CHOICES, Choice, EdgeSpec, Kind


class CellEdge(NamedTuple):
    """One edge of a cell; the fields are those of `EdgeSpec`, and `place` is the submodule's path in the cell."""

    place: str
    kind: Kind
    operation: str
    in_channels: int
    out_channels: int
    stride: int
    source: str
    target: str
    candidates: tuple[Choice, ...] = CHOICES


class Cell(Protocol):
    """A block of the network: forward(x, before), where `x` is the previous cell's output and `before` its input."""

    cell_type: str
    edges: Sequence[CellEdge]
    out_channels: int
    stride: int


def declare_edges(path: str, cell: Cell) -> list[EdgeSpec]:
    """The edges that a cell has within it, the cell being the network's submodule `path`."""
    return [
        EdgeSpec(
            f"{path}.{edge.place}",
            edge.kind,
            edge.operation,
            edge.in_channels,
            edge.out_channels,
            edge.stride,
            path,
            cell.cell_type,
            edge.place,
            edge.source,
            edge.target,
            edge.candidates,
        )
        for edge in cell.edges
    ]


def declare_branch(path: str, cell: Cell) -> list[EdgeSpec]:
    """One edge for all that a residual block adds to its input, so none for another cell.

    The block is the submodule, and the identity in its place is the block with a branch of zeros: what enters is never
    negative where the block ends in a ReLU.
    """
    channels = cell.out_channels
    stage, _, place = path.rpartition(".")
    is_residual = any(e.kind == "identity" and (e.source, e.target) == ("in", "out") for e in cell.edges)
    if not is_residual or cell.stride != 1 or any(e.in_channels != channels for e in cell.edges if e.source == "in"):
        return []
    operation = type(cell).__name__
    shape = channels, channels, 1
    return [
        EdgeSpec(
            path, "operation", operation, *shape, stage, operation, place, place, f"{place}+1", ("original", "identity")
        )
    ]
