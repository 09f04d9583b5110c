"""The transforms of a cell in NAT: an edge becomes none or a skip connection, or stays."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import nn

from ssl_adapt.adaptation.architecture import Architecture, model_args, model_name
from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.darts import NAMES
from ssl_adapt.backbones.genotypes import CellGenotype, Genotype, GenotypeEdge
from ssl_adapt.errors import UserError

Action = Literal["none", "same", "skip"]
ACTIONS: tuple[Action, ...] = get_args(Action)
EDGES_PER_NODE = 2

_BOTH = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3", "sep_conv_5x5")
CONCAT_OPERATIONS = (*_BOTH, "dil_conv_3x3", "dil_conv_5x5", "conv_3x3")
ONE_OUTPUT_OPERATIONS = (*_BOTH, "conv_1x1", "conv_3x3", "conv_5x5")


def allowed_actions(operation: str) -> tuple[bool, ...]:
    """Which of `ACTIONS` an edge with that operation may take.

    An operation takes all, a skip connection becomes none, none becomes a skip connection. What would leave the edge
    as it is counts once, as "same".
    """
    return operation != "none", True, operation != "skip_connect"


def transform_cell(cell: CellGenotype, actions: Sequence[Action]) -> CellGenotype:
    """The cell after one action on each of its edges, in their order; sources, targets and concat stay.

    Raises:
        ValueError: if there are more or fewer actions than edges, or an edge may not take its action.
    """
    if len(actions) != len(cell.edges):
        raise UserError(f"{len(actions)} actions for {len(cell.edges)} edges: give one for each")
    edges = []
    for (operation, source, target), action in zip(cell.edges, actions, strict=True):
        allowed = [name for name, may in zip(ACTIONS, allowed_actions(operation), strict=True) if may]
        if action not in allowed:
            raise UserError(f"edge {operation} {source}->{target} can't take {action!r}: give {' or '.join(allowed)}")
        new = {"none": "none", "same": operation, "skip": "skip_connect"}[action]
        edges.append(GenotypeEdge(new, source, target))
    return CellGenotype(tuple(edges), cell.concat)


def candidate_operations(form: Genotype) -> tuple[str, ...]:
    """The nine operations that the supernet of cells of this form has on every edge, "none" among them.

    Raises:
        ValueError: if NAT has no place for such cells: an operation is none of the nine, or a node has not two edges.
    """
    operations = CONCAT_OPERATIONS if len(form.normal.concat) > 1 else ONE_OUTPUT_OPERATIONS
    for cell in (form.normal, form.reduction):
        targets = [edge.target for edge in cell.edges]
        if uneven := [node for node in targets if targets.count(node) != EDGES_PER_NODE]:
            raise UserError(
                f"{targets.count(uneven[0])} edge(s) enter node {uneven[0]}, and NAT decides on exactly "
                f"{EDGES_PER_NODE} of each node: add or remove edges of the genotype (a missing one is 'none')"
            )
        if unknown := [edge.operation for edge in cell.edges if edge.operation not in operations]:
            raise UserError(
                f"NAT's supernet has no {unknown[0]!r} in cells whose output has {len(form.normal.concat)} node(s): "
                f"use {', '.join(operations)}"
            )
    return operations


def draw_genotype(form: Genotype, operations: Sequence[str]) -> Genotype:
    """A uniformly random genotype of that form: two different sources for each node, any operation on each edge.

    All draws come from torch's CPU generator.
    """
    return Genotype(*(_draw_cell(cell, operations) for cell in (form.normal, form.reduction)))


def genotype_of(model: nn.Module) -> Genotype:
    """The genotype of a network whose cells are all of two types, normal and reduction.

    Raises:
        ValueError: if it is no such network, or an edge was adapted apart from those of the other cells.
    """
    args, name = model_args(model), model_name(model)
    if "genotype" not in args:
        raise UserError(
            f"NAT can't transform {name!r}, since it transforms one cell for the whole network and the cells of this "
            f"one differ: take a network of identical cells, {', '.join(NAMES)}"
        )
    if isinstance(model, Adaptable) and Architecture.of(model).changed:
        raise UserError(f"edges of this {name!r} were adapted, so that its cells differ: give NAT the plain network")
    return Genotype.from_dict(args["genotype"])


def _draw_cell(cell: CellGenotype, operations: Sequence[str]) -> CellGenotype:
    edges = []
    for target in range(2, cell.edges[-1].target + 1):
        sources = cast(list[int], torch.randperm(target)[:EDGES_PER_NODE].sort().values.tolist())
        drawn = torch.randint(len(operations), (EDGES_PER_NODE,)).tolist()
        edges += [GenotypeEdge(operations[index], source, target) for index, source in zip(drawn, sources, strict=True)]
    return CellGenotype(tuple(edges), cell.concat)
