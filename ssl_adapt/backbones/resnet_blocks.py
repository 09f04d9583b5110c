"""The two blocks of a ResNet, and the shapes of all blocks of a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Pad, Source, Zero
from ssl_adapt.backbones.cell_edges import CellEdge
from ssl_adapt.backbones.operations import create_conv_bn, sum_edges

BlockName = Literal["basic", "bottleneck"]
Shortcut = Literal["A", "B"]
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True)
class BlockPlan:
    """Shapes of one block: what enters from the previous block (x) and from the one before that (before)."""

    in_channels: int
    width: int
    out_channels: int
    stride: int
    before_channels: int
    before_stride: int

    @property
    def changes_shape(self) -> bool:
        """Whether the block's output has another shape than its input."""
        return self.in_channels != self.out_channels or self.stride != 1

    @property
    def cell_type(self) -> str:
        """Blocks of the same type have the same edges."""
        return "reduction" if self.changes_shape else "normal"


def plan_blocks(block: BlockName, layers: Sequence[int], width: int) -> list[list[BlockPlan]]:
    """The shapes of the blocks of every stage; each stage but the first doubles the width and halves the size."""
    stages: list[list[BlockPlan]] = []
    before_channels = in_channels = width
    before_stride = 1
    for stage, count in enumerate(layers):
        stages.append([])
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            stage_width = width * 2**stage
            out_channels = stage_width * EXPANSION[block]
            plan = BlockPlan(in_channels, stage_width, out_channels, stride, before_channels, before_stride)
            stages[-1].append(plan)
            before_channels, in_channels, before_stride = in_channels, out_channels, stride
    return stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, plan: BlockPlan, shortcut: Shortcut) -> None:
        super().__init__()
        beside, shortcut_edge = create_shortcut(plan, shortcut)  # first, as the order of random draws is kept
        self.cell_type = plan.cell_type
        self.out_channels, self.stride = plan.out_channels, plan.stride
        self.conv1 = create_conv_bn(plan.in_channels, plan.width, 3, plan.stride)
        self.conv2 = create_conv_bn(plan.width, plan.out_channels, 3)
        self.shortcut = beside
        self.edges = (
            CellEdge("conv1", "operation", "conv 3x3", plan.in_channels, plan.width, plan.stride, "in", "1"),
            CellEdge("conv2", "operation", "conv 3x3", plan.width, plan.out_channels, 1, "1", "out"),
            shortcut_edge,
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x (B, in, H, W) -> (B, out, H / stride, W / stride); `before` is not used by this block."""
        source = Source(x, self.conv1, self.shortcut)
        hidden = F.relu(sum_edges((self.conv1, source)))
        return F.relu(sum_edges((self.conv2, hidden), (self.shortcut, source)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, and three null edges from the block before the previous.

    A null edge is a none edge: in the plain network it is zero and costs nothing. `null1` adds to what `conv1`
    computes, and so on; together they are N0->2, N0->3 and N0->4 of the ResBlock cell of NAT (Guo et al. 2019).
    Deviation: a NAT cell first projects both inputs to its own width. Here the identity of a null edge is cut,
    padded or projected instead, so that the plain network stays the ordinary ResNet.
    """

    def __init__(self, plan: BlockPlan, shortcut: Shortcut) -> None:
        super().__init__()
        beside, shortcut_edge = create_shortcut(plan, shortcut)  # first, as the order of random draws is kept
        self.cell_type = plan.cell_type
        self.out_channels, self.stride = plan.out_channels, plan.stride
        self.conv1 = create_conv_bn(plan.in_channels, plan.width, 1)
        self.conv2 = create_conv_bn(plan.width, plan.width, 3, plan.stride)
        self.conv3 = create_conv_bn(plan.width, plan.out_channels, 1)
        self.shortcut = beside
        width, out = plan.width, plan.out_channels
        before, stride = plan.before_channels, plan.before_stride * plan.stride
        self.null1 = Zero(width, plan.before_stride)
        self.null2 = Zero(width, stride)
        self.null3 = Zero(out, stride)
        self.edges = (
            CellEdge("conv1", "operation", "conv 1x1", plan.in_channels, width, 1, "in", "1"),
            CellEdge("null1", "none", "none", before, width, plan.before_stride, "before", "1"),
            CellEdge("conv2", "operation", "conv 3x3", width, width, plan.stride, "1", "2"),
            CellEdge("null2", "none", "none", before, width, stride, "before", "2"),
            CellEdge("conv3", "operation", "conv 1x1", width, out, 1, "2", "out"),
            CellEdge("null3", "none", "none", before, out, stride, "before", "out"),
            shortcut_edge,
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x (B, in, H, W), and `before`, the input of the block before -> (B, out, H / stride, W / stride)."""
        source, earlier = Source(x, self.conv1, self.shortcut), Source(before, self.null1, self.null2, self.null3)
        hidden = F.relu(sum_edges((self.conv1, source), (self.null1, earlier)))
        hidden = F.relu(sum_edges((self.conv2, hidden), (self.null2, earlier)))
        return F.relu(sum_edges((self.conv3, hidden), (self.null3, earlier), (self.shortcut, source)))


BLOCKS: dict[BlockName, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def create_shortcut(plan: BlockPlan, shortcut: Shortcut) -> tuple[nn.Module, CellEdge]:
    """What stands beside a block's convolutions, and its edge: an identity, `Pad`, or a 1x1 convolution."""
    shape = plan.in_channels, plan.out_channels, plan.stride
    if plan.changes_shape and shortcut == "B":
        module = create_conv_bn(plan.in_channels, plan.out_channels, 1, plan.stride)
        return module, CellEdge("shortcut", "operation", "conv 1x1", *shape, "in", "out")
    return Pad(*shape) if plan.changes_shape else nn.Identity(), CellEdge(
        "shortcut", "identity", "identity", *shape, "in", "out"
    )
