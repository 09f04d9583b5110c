"""The network that holds every candidate operation on every edge, and runs one genotype at a time."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from reproduction.nat.transitions import candidate_operations
from ssl_adapt.backbones.cell_operations import create_operation
from ssl_adapt.backbones.cells import create_preprocesses
from ssl_adapt.backbones.darts import reduction_cells
from ssl_adapt.backbones.genotypes import CellGenotype, Genotype
from ssl_adapt.backbones.operations import sum_edges


class SupernetCell(nn.Module):
    """A cell with an edge from every node to every later one, and all candidate operations on each edge.

    Args:
        operations: the candidates.
        form: a genotype with the number of nodes and the `concat` of the cells to come.
        in_channels: of the cell before the previous (node 0) and of the previous (node 1).
        channels: width of every node.
        reduces: whether the edges from nodes 0 and 1 have stride 2.
        follows_reduction: whether node 0 comes with twice the height and width of node 1.
    """

    def __init__(
        self,
        operations: Sequence[str],
        form: CellGenotype,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduces: bool,
        follows_reduction: bool,
    ) -> None:
        super().__init__()
        self.reduces = reduces
        self.concat = form.concat
        self.preprocess0, self.preprocess1 = create_preprocesses(in_channels, channels, follows_reduction)
        self.edges = nn.ModuleDict()
        for target in range(2, form.edges[-1].target + 1):
            for source in range(target):
                stride = 2 if reduces and source < 2 else 1
                candidates = {name: _create_candidate(name, channels, stride) for name in operations}
                self.edges[f"{source}_{target}"] = nn.ModuleDict(candidates)
        _use_batch_statistics(self)

    def forward(self, before: Tensor, x: Tensor, genotype: CellGenotype) -> Tensor:
        """As `GenotypeCell`, with the edges and operations of the genotype alone."""
        nodes = [self.preprocess0(before), self.preprocess1(x)]
        for target in range(2, genotype.edges[-1].target + 1):
            entering = (edge for edge in genotype.edges if edge.target == target)
            nodes.append(sum_edges(*((self._operation(*edge), nodes[edge.source]) for edge in entering)))
        return torch.cat([nodes[node] for node in self.concat], dim=1)

    def _operation(self, operation: str, source: int, target: int) -> nn.Module:
        return cast(nn.ModuleDict, self.edges[f"{source}_{target}"])[operation]


class Supernet(nn.Module):
    """Cells that share their weights between all genotypes of a form; 5,997,350 parameters as published for DARTS.

    BatchNorm always normalises by the statistics of the batch: running ones would mix those of all genotypes, and fit
    none of them. Inside the cells it has no scale and shift. A batch needs at least two images.

    Args:
        form: a genotype with the number of nodes and the `concat` of the cells to come; it also names the candidates.
        channels: width C of the nodes of the first cells; the stem has 3 C.
        cells: how many cells; those at one and two thirds of the depth halve the size and double C.
        num_classes: 0 gives pooled features instead of logits.

    Raises:
        ValueError: for a form that `candidate_operations` refuses.

    Source: Guo et al. 2019, after the search network of DARTS, whose poolings end in BatchNorm too.
    """

    def __init__(self, form: Genotype, *, channels: int, cells: int, num_classes: int) -> None:
        super().__init__()
        operations = candidate_operations(form)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(3 * channels, track_running_stats=False),
            )
        )
        self.cells = nn.ModuleList()
        reductions = reduction_cells(cells)
        before = previous = 3 * channels
        for index in range(cells):
            reduces = index in reductions
            channels *= 2 if reduces else 1
            cell_form = form.reduction if reduces else form.normal
            cell = SupernetCell(
                operations,
                cell_form,
                (before, previous),
                channels,
                reduces=reduces,
                follows_reduction=index - 1 in reductions,
            )
            self.cells.append(cell)
            before, previous = previous, channels * len(cell_form.concat)
        self.num_features = previous
        self.fc = nn.Linear(previous, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor, genotype: Genotype) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, num_classes), or features (B, num_features), by that genotype."""
        before = x = self.stem(images)
        for cell in self.cells:
            before, x = x, cell(before, x, genotype.reduction if cell.reduces else genotype.normal)
        output: Tensor = self.fc(x.mean(dim=(2, 3)))
        return output


class Subnetwork(nn.Module):
    """The network of one genotype: its path through a supernet, and the head."""

    def __init__(self, supernet: Supernet, head: nn.Module, genotype: Genotype) -> None:
        super().__init__()
        self.supernet = supernet
        self.head = head
        self.genotype = genotype

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the head's outputs."""
        output: Tensor = self.head(self.supernet(images, self.genotype))
        return output


def _create_candidate(name: str, channels: int, stride: int) -> nn.Module:
    operation = create_operation(name, channels, stride)
    return nn.Sequential(operation, nn.BatchNorm2d(channels)) if "pool" in name else operation


def _use_batch_statistics(module: nn.Module) -> None:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = nn.BatchNorm2d(child.num_features, affine=False, track_running_stats=False)
                setattr(parent, name, norm)
