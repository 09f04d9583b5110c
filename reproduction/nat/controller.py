"""The controller: from a cell's graph to a distribution over the actions on its edges."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical

from reproduction.nat.transitions import ACTIONS, EDGES_PER_NODE, allowed_actions, transform_cell
from ssl_adapt.backbones.genotypes import CellGenotype, Genotype

OPERATION_SIZE = 100  # of an operation's embedding
NODE_SIZE, HIDDEN_SIZE = 1024, 100
FLOOR = 1e-5  # added to every probability


class Transform(NamedTuple):
    """A drawn transform: the genotype after it, log p and the entropy (scalars with gradient).

    Log p and entropy are sums over the edges of both cells.
    """

    genotype: Genotype
    log_probability: Tensor
    entropy: Tensor


class GraphConvolution(nn.Module):
    """A (X W) + b for an adjacency A (N, N) and nodes X (N, in): (N, out)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Nodes (N, in) and A (N, N), A[to, from] = 1 for an edge -> (N, out)."""
        output: Tensor = adjacency @ self.linear(nodes) + self.bias
        return output


class Controller(nn.Module):
    """320,330 parameters with nine operations; both types of cells go through the same ones.

    It is small and its draws come from torch's CPU generator, so it stays on the CPU.

    Args:
        operations: the candidates of the supernet.
        self_loops: whether a node also sees itself. The released code has none. A node's logits then don't depend on
            the operations of its own edges, nor on those of the nodes right before it, but on those two steps
            before; those of node 2 are the same for every cell.

    Source: Guo et al. 2019, a graph convolutional network after Kipf and Welling 2017.
    """

    def __init__(self, operations: tuple[str, ...], *, self_loops: bool) -> None:
        super().__init__()
        self.operations = operations
        self.self_loops = self_loops
        self.operation_embedding = nn.Embedding(len(operations), OPERATION_SIZE)
        self.input_embedding = nn.Embedding(2, EDGES_PER_NODE * OPERATION_SIZE)
        self.node = nn.Linear(EDGES_PER_NODE * OPERATION_SIZE, NODE_SIZE)
        self.convolution1 = GraphConvolution(NODE_SIZE, HIDDEN_SIZE)
        self.convolution2 = GraphConvolution(HIDDEN_SIZE, HIDDEN_SIZE)
        self.action = nn.Linear(HIDDEN_SIZE, EDGES_PER_NODE * len(ACTIONS))

    def forward(self, cell: CellGenotype) -> Tensor:
        """The logits of the actions (in the order of `ACTIONS`) on each edge (in the cell's order): (edges, 3)."""
        operations = torch.tensor([self.operations.index(edge.operation) for edge in cell.edges])
        inner = self.operation_embedding(operations).view(-1, EDGES_PER_NODE * OPERATION_SIZE)
        nodes = self.node(torch.cat([self.input_embedding.weight, inner]))
        adjacency = torch.eye(len(nodes)) if self.self_loops else torch.zeros(len(nodes), len(nodes))
        for _, source, target in cell.edges:
            adjacency[target, source] = 1
        nodes = self.convolution2(F.relu(self.convolution1(nodes, adjacency)), adjacency)
        logits: Tensor = self.action(nodes[2:]).view(len(cell.edges), len(ACTIONS))
        return logits

    def draw(self, genotype: Genotype) -> Transform:
        """A random transform of the genotype; forbidden actions have probability 0."""
        cells, log_probabilities, entropies = [], [], []
        for cell in (genotype.normal, genotype.reduction):
            allowed = torch.tensor([allowed_actions(edge.operation) for edge in cell.edges])
            # Categorical brings what is left to a sum of 1
            distribution = Categorical(probs=(self(cell).softmax(dim=1) + FLOOR) * allowed)
            drawn = distribution.sample()
            cells.append(transform_cell(cell, [ACTIONS[index] for index in drawn.tolist()]))
            log_probabilities.append(distribution.log_prob(drawn).sum())
            entropies.append(distribution.entropy().sum())
        return Transform(Genotype(*cells), sum(log_probabilities, torch.zeros(())), sum(entropies, torch.zeros(())))
