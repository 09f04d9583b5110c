"""The edges of a network as rows, for a table and for JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, edge_specs, model_name, replace_module
from ssl_adapt.adaptation.cost import copy_to_meta, count_macs, count_parameters
from ssl_adapt.adaptation.edge import Choice, EdgeSpec, Zero
from ssl_adapt.adaptation.sharing import group_name
from ssl_adapt.errors import UserError


@dataclass(frozen=True)
class EdgeRow:
    """An edge as it is now.

    Attributes:
        name: path of the submodule.
        kind: what the plain network has there.
        original: the plain network's operation, in words.
        operation: what is there now: `original`, "identity" or "none".
        choice: the same as the architecture has it.
        in_shape: for one image, without the batch; None if nothing reads the edge.
        out_shape: the same.
        parameters: scalars.
        macs: multiply-adds for one image; 0 if nothing reads the edge's output.
        full_group: the group of edges that it shares theta with under sharing="full": itself.
        cell_group: the group under sharing="cell".
    """

    name: str
    kind: str
    original: str
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
        """Strict JSON: the totals, an object for each edge with the fields of `EdgeRow`, and the architecture."""
        return json.dumps(
            {
                "model": self.model,
                "image_px": self.image_px,
                "parameters": self.parameters,
                "macs": self.macs,
                "edge_count": len(self.rows),
                "changed_count": len(self.architecture.changed),
                "edges": [asdict(row) for row in self.rows],
                "architecture": self.architecture.to_dict(),
            },
            indent=2,
            allow_nan=False,
        )


def describe_network(model: nn.Module, image_px: int) -> NetworkTable:
    """The table of a plain or fixed network for square RGB images; shapes only are computed, so it is fast.

    Raises:
        ValueError: if the network declares no edges, is mixed, or can't take images of that size.
    """
    architecture, specs = Architecture.of(model), edge_specs(model)
    network = copy_to_meta(model).eval()
    image = torch.zeros(1, 3, image_px, image_px, device="meta")
    try:
        macs = count_macs(network, image)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{model_name(model)} can't take RGB images of image_px={image_px}: {reason}") from None
    computed = set(_flows(network, specs, image))  # an edge to a node that nothing reads is not
    for spec in specs:
        module = network.get_submodule(spec.name)
        if isinstance(module, Zero):
            replace_module(network, spec.name, _Read(module))
    flows = _flows(network, specs, image)
    rows = tuple(
        _create_row(spec, architecture, network.get_submodule(spec.name), flows.get(spec.name), spec.name in computed)
        for spec in specs
    )
    name = str(architecture.model_args.get("base", architecture.model))  # of what `adaptable` was given
    return NetworkTable(name, image_px, rows, count_parameters(model), macs, architecture, specs)


def print_network(network: NetworkTable, console: Console) -> None:
    """The table on the terminal; changed edges are red."""
    is_narrow = console.width < 116  # then one space between columns instead of two
    table = Table(header_style="dim", box=None, pad_edge=False, collapse_padding=is_narrow)
    for column in ("edge (Full group)", "kind", "operation", "shape", "parameters", "MACs", "Cell group"):
        is_number = column in ("parameters", "MACs")
        table.add_column(
            column, justify="right" if is_number else "left", no_wrap=column != "Cell group", overflow="fold"
        )
    for row in network.rows:
        is_changed = row.choice != "original"
        operation = f"{row.original} → {row.operation}" if is_changed else row.operation
        numbers = f"{row.parameters:,}", _millions(row.macs)
        values = (row.name, row.kind, operation, _shapes(row), *numbers, row.cell_group)
        table.add_row(*map(Text, values), style="red" if is_changed else "")
    in_edges = sum(row.parameters for row in network.rows), sum(row.macs for row in network.rows)
    table.add_row()
    table.add_row("all edges", "", "", "", f"{in_edges[0]:,}", _millions(in_edges[1]), style="bold")
    table.add_row("the network", "", "", "", f"{network.parameters:,}", _millions(network.macs), style="bold")
    console.print(table)
    changed = len(network.architecture.changed)
    console.print(
        f"\n{network.model} at {network.image_px} px: {network.parameters:,} parameters, "
        f"{network.macs:,} multiply-adds (MACs); {len(network.rows)} edges, {changed} changed",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


class Flow(NamedTuple):
    """What an edge was called with, a tensor first, and its output."""

    inputs: tuple[Any, ...]
    keywords: dict[str, Any]
    output: Tensor


class _Read(nn.Module):
    """A none operation that is called even where its node would skip it, to find its shapes."""

    def __init__(self, zero: nn.Module) -> None:
        super().__init__()
        self.zero = zero

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        return cast(Tensor, self.zero(*inputs, **keywords))


def _flows(network: nn.Module, specs: Sequence[EdgeSpec], image: Tensor) -> dict[str, Flow]:
    """What each edge that is computed gets and gives, by name, on the meta device."""
    flows: dict[str, Flow] = {}
    hooks = [
        network.get_submodule(spec.name).register_forward_hook(
            lambda _, inputs, keywords, output, name=spec.name: flows.update({name: Flow(inputs, keywords, output)}),
            with_kwargs=True,
        )
        for spec in specs
    ]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return flows


def _create_row(
    spec: EdgeSpec,
    architecture: Architecture,
    module: nn.Module,
    flow: Flow | None,
    is_computed: bool,
) -> EdgeRow:
    choice, parameters = architecture.edges[spec.name], count_parameters(module)
    return EdgeRow(
        spec.name,
        spec.kind,
        spec.operation,
        spec.operation if choice == "original" else choice,
        choice,
        tuple(flow.inputs[0].shape[1:]) if flow else None,
        tuple(flow.output.shape[1:]) if flow else None,
        parameters,
        count_macs(module, *flow.inputs, **flow.keywords) if flow and is_computed and parameters else 0,
        group_name(spec, "full", architecture.shape_change),
        group_name(spec, "cell", architecture.shape_change),
    )


def _shapes(row: EdgeRow) -> str:
    if row.in_shape is None or row.out_shape is None:
        return "not read"
    shapes = dict.fromkeys("x".join(map(str, shape)) for shape in (row.in_shape, row.out_shape))
    return " → ".join(shapes)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M" if count else "0"
