"""The two blocks of a ResNet, and the shapes of all blocks of a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Kind, Pad, Zero
from ssl_adapt.backbones.operations import create_conv_bn, sum_edges

BlockName = Literal["basic", "bottleneck"]
Shortcut = Literal["A", "B"]
Edge = tuple[str, Kind, int, int, int]  # place, kind, input channels, output channels, stride
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True)
class BlockPlan:
    """Shapes of one block: what enters from the previous block (x) and from the one before that (before)."""

    name: str
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


def plan_blocks(block: BlockName, layers: Sequence[int], width: int) -> list[BlockPlan]:
    """The shapes of all blocks in forward order: each stage but the first doubles the width and halves the size."""
    plans: list[BlockPlan] = []
    before_channels = in_channels = width
    before_stride = 1
    for stage, count in enumerate(layers):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            stage_width = width * 2**stage
            out_channels = stage_width * EXPANSION[block]
            name = f"layer{stage + 1}.{index}"
            plans.append(
                BlockPlan(name, in_channels, stage_width, out_channels, stride, before_channels, before_stride)
            )
            before_channels, in_channels, before_stride = in_channels, out_channels, stride
    return plans


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, plan: BlockPlan, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = create_conv_bn(plan.in_channels, plan.width, 3, plan.stride)
        self.conv2 = create_conv_bn(plan.width, plan.out_channels, 3)
        self.shortcut = shortcut

    def forward(self, before: Tensor, x: Tensor) -> Tensor:
        """x (B, in, H, W) -> (B, out, H / stride, W / stride); `before` is not used by this block."""
        hidden = F.relu(sum_edges((self.conv1, x)))
        return F.relu(sum_edges((self.conv2, hidden), (self.shortcut, x)))

    @staticmethod
    def edges(plan: BlockPlan) -> Iterator[Edge]:
        """Every edge but the shortcut, in forward order."""
        yield "conv1", "operation", plan.in_channels, plan.width, plan.stride
        yield "conv2", "operation", plan.width, plan.out_channels, 1


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, and three null edges from the block before the previous.

    A null edge is a none edge: in the plain network it is zero and costs nothing. `null1` adds to what `conv1`
    computes, and so on; together they are N0->2, N0->3 and N0->4 of the ResBlock cell of NAT (Guo et al. 2019).
    Deviation: a NAT cell first projects both inputs to its own width. Here the identity of a null edge is cut,
    padded or projected instead, so that the plain network stays the ordinary ResNet.
    """

    def __init__(self, plan: BlockPlan, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = create_conv_bn(plan.in_channels, plan.width, 1)
        self.conv2 = create_conv_bn(plan.width, plan.width, 3, plan.stride)
        self.conv3 = create_conv_bn(plan.width, plan.out_channels, 1)
        self.shortcut = shortcut
        self.null1 = Zero(plan.width, plan.before_stride)
        self.null2 = Zero(plan.width, plan.before_stride * plan.stride)
        self.null3 = Zero(plan.out_channels, plan.before_stride * plan.stride)

    def forward(self, before: Tensor, x: Tensor) -> Tensor:
        """x (B, in, H, W), and `before`, the input of the block before -> (B, out, H / stride, W / stride)."""
        hidden = F.relu(sum_edges((self.conv1, x), (self.null1, before)))
        hidden = F.relu(sum_edges((self.conv2, hidden), (self.null2, before)))
        return F.relu(sum_edges((self.conv3, hidden), (self.null3, before), (self.shortcut, x)))

    @staticmethod
    def edges(plan: BlockPlan) -> Iterator[Edge]:
        """Every edge but the shortcut, in forward order."""
        before, stride = plan.before_channels, plan.before_stride * plan.stride
        yield "conv1", "operation", plan.in_channels, plan.width, 1
        yield "null1", "none", before, plan.width, plan.before_stride
        yield "conv2", "operation", plan.width, plan.width, plan.stride
        yield "null2", "none", before, plan.width, stride
        yield "conv3", "operation", plan.width, plan.out_channels, 1
        yield "null3", "none", before, plan.out_channels, stride


BLOCKS: dict[BlockName, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def create_shortcut(plan: BlockPlan, shortcut: Shortcut) -> nn.Module:
    """What stands beside a block's convolutions: an identity, `Pad`, or a 1x1 convolution with BatchNorm."""
    if not plan.changes_shape:
        return nn.Identity()
    if shortcut == "A":
        return Pad(plan.in_channels, plan.out_channels, plan.stride)
    return create_conv_bn(plan.in_channels, plan.out_channels, 1, plan.stride)
