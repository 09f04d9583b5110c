"""The cell that a genotype describes."""

from string import ascii_lowercase

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Kind, Source, Zero
from ssl_adapt.backbones.cell_edges import CellEdge
from ssl_adapt.backbones.cell_operations import create_factorized_reduce, create_operation, create_relu_conv_bn
from ssl_adapt.backbones.genotypes import CellGenotype
from ssl_adapt.backbones.operations import sum_edges


def create_preprocesses(
    in_channels: tuple[int, int], channels: int, follows_reduction: bool
) -> tuple[nn.Module, nn.Module]:
    """What brings the inputs of a cell, nodes 0 and 1, to its width, and node 0 to the height and width of node 1."""
    before, previous = in_channels
    bring = (
        create_factorized_reduce(before, channels) if follows_reduction else create_relu_conv_bn(before, channels, 1)
    )
    return bring, create_relu_conv_bn(previous, channels, 1)


class GenotypeCell(nn.Module):
    """Two inputs brought to one width, nodes that sum edges, and the concatenation of some nodes.

    The edges of the genotype are the submodules `edge_SOURCE_TARGET`; a second edge between the same nodes is
    `edge_SOURCE_TARGET_b`. What brings the inputs to the cell's width is no edge.

    Args:
        genotype: the cell's graph.
        in_channels: of the cell before the previous (node 0) and of the previous (node 1).
        channels: width of every node.
        reduces: whether the edges from nodes 0 and 1 have stride 2.
        follows_reduction: whether node 0 comes with twice the height and width of node 1.

    Source: https://github.com/quark0/darts, cnn/model.py.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduces: bool,
        follows_reduction: bool,
    ) -> None:
        super().__init__()
        self.cell_type = "reduction" if reduces else "normal"
        self.stride = 2 if reduces else 1
        self.concat = genotype.concat
        self.channels = channels
        self.out_channels = channels * len(self.concat)
        self.preprocess0, self.preprocess1 = create_preprocesses(in_channels, channels, follows_reduction)
        edges: list[CellEdge] = []
        for operation, source, target in genotype.edges:
            place = self._free_name(f"edge_{source}_{target}")
            stride = self.stride if source < 2 else 1
            module = create_operation(operation, channels, stride)
            self.add_module(place, module)
            shape = channels, channels, stride
            edges.append(CellEdge(place, _kind_of(module), operation, *shape, str(source), str(target)))
        self.edges = tuple(edges)
        self._entering: dict[int, list[tuple[str, int]]] = {edge.target: [] for edge in genotype.edges}
        for edge in edges:
            self._entering[int(edge.target)].append((edge.place, int(edge.source)))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x (B, in, H, W), and the input `before` of the cell that gave it -> (B, out, H / stride, W / stride)."""
        entering = self._edges_that_carry()
        leaving: dict[int, list[nn.Module]] = {node: [] for node in (0, 1, *entering)}
        read = self._nodes_read(entering)
        for node in read & entering.keys():
            for edge, source in entering[node]:
                leaving[source].append(edge)
        nodes: dict[int, Source] = {}
        if 0 in read:
            nodes[0] = Source(self.preprocess0(before), *leaving[0])
        if 1 in read:
            nodes[1] = Source(self.preprocess1(x), *leaving[1])
        for node, edges in entering.items():
            if node in read:
                total = sum_edges(*((edge, nodes[source]) for edge, source in edges)) if edges else self._zeros(x)
                nodes[node] = Source(total, *leaving[node])
        outputs = [nodes[node].x for node in self.concat]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def _edges_that_carry(self) -> dict[int, list[tuple[nn.Module, int]]]:
        """For each inner node, the edges that enter it and are not none, each with the node that it leaves."""
        entering = {}
        for node, places in self._entering.items():
            edges = [(getattr(self, place), source) for place, source in places]  # adaptation exchanges the modules
            entering[node] = [(edge, source) for edge, source in edges if not isinstance(edge, Zero)]
        return entering

    def _nodes_read(self, entering: dict[int, list[tuple[nn.Module, int]]]) -> set[int]:
        """The nodes on which the output depends; what nothing reads is not computed."""
        read = set(self.concat)
        for node in reversed(entering):
            if node in read:
                read.update(source for _, source in entering[node])
        return read

    def _zeros(self, x: Tensor) -> Tensor:
        """A node that no edge carries anything to."""
        height, width = (-(-size // self.stride) for size in x.shape[-2:])
        return x.new_zeros(x.shape[0], self.channels, height, width)

    def _free_name(self, name: str) -> str:
        names = (name, *(f"{name}_{letter}" for letter in ascii_lowercase[1:]))
        return next(free for free in names if not hasattr(self, free))


def _kind_of(operation: nn.Module) -> Kind:
    if isinstance(operation, Zero):
        return "none"
    return "identity" if isinstance(operation, nn.Identity) else "operation"
