"""The edges of a network as rows, for a table and for JSON."""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, edge_specs, model_name
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import Choice, EdgeSpec


@dataclass(frozen=True)
class EdgeRow:
    """An edge as it is now: shapes are those of one image, None where nothing flows through it."""

    name: str
    kind: str
    operation: str
    choice: Choice
    in_shape: tuple[int, ...] | None
    out_shape: tuple[int, ...] | None
    parameters: int
    macs: int
    full_group: str
    cell_group: str


@dataclass(frozen=True)
class NetworkTable:
    """All edges of a network, and its totals."""

    model: str
    image_px: int
    rows: tuple[EdgeRow, ...]
    parameters: int
    macs: int
    architecture: Architecture
    specs: tuple[EdgeSpec, ...]

    def to_json(self) -> str:
        """The rows, the totals and the architecture."""
        return json.dumps(
            {
                "model": self.model,
                "image_px": self.image_px,
                "parameters": self.parameters,
                "macs": self.macs,
                "edges": [asdict(row) for row in self.rows],
                "architecture": self.architecture.to_dict(),
            },
            indent=2,
        )


def describe_network(model: nn.Module, image_px: int) -> NetworkTable:
    """The table of a plain or fixed network for square RGB images; nothing is computed, so it is quick.

    Raises:
        ValueError: if the network declares no edges, is mixed, or can't take images of that size.
    """
    architecture, specs = Architecture.of(model), edge_specs(model)
    network = deepcopy(model).to("meta").eval()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for spec in specs:
        network.get_submodule(spec.name).register_forward_hook(
            lambda _, inputs, output, name=spec.name: seen.update({name: (inputs[0], output)})
        )
    image = torch.zeros(1, 3, image_px, image_px, device="meta")
    try:
        macs = count_macs(network, image)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{model_name(model)} can't take RGB images of image_px={image_px}: {reason}") from None
    rows = []
    for spec in specs:
        module, choice = network.get_submodule(spec.name), architecture.edges[spec.name]
        tensors = seen.get(spec.name)
        rows.append(
            EdgeRow(
                spec.name,
                spec.kind,
                spec.operation if choice == "original" else choice,
                choice,
                tuple(tensors[0].shape[1:]) if tensors else None,
                tuple(tensors[1].shape[1:]) if tensors else None,
                count_parameters(module),
                count_macs(module, tensors[0]) if tensors and count_parameters(module) else 0,
                spec.name,
                f"{spec.cell_type}.{spec.place}",
            )
        )
    return NetworkTable(
        model_name(model), image_px, tuple(rows), count_parameters(model), macs, architecture, tuple(specs)
    )


def print_network(network: NetworkTable, console: Console) -> None:
    """The table on the terminal; changed edges are red."""
    table = Table(header_style="dim", box=None, pad_edge=False)
    for index, column in enumerate(
        ("edge (its group in Full)", "kind", "now", "in", "out", "parameters", "MACs", "group in Cell")
    ):
        table.add_column(column, justify="right" if index in (5, 6) else "left", overflow="fold")
    for row in network.rows:
        values: list[Any] = [row.name, row.kind, row.operation, _shape(row.in_shape), _shape(row.out_shape)]
        values += [f"{row.parameters:,}", f"{row.macs:,}", row.cell_group]
        table.add_row(*map(escape, values), style="red" if row.choice != "original" else "")
    console.print(table)
    changed = len(network.architecture.changed)
    console.print(
        f"\n{network.model} at {network.image_px} px: {network.parameters:,} parameters, "
        f"{network.macs:,} multiply-adds; {len(network.rows)} edges, {changed} changed",
        highlight=False,
        soft_wrap=True,
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else "x".join(map(str, shape))
