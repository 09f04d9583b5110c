"""The inverted residual block of MobileNetV2 and ProxylessNAS: expand, convolve each channel, project."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ssl_adapt.adaptation.edge import CHOICES, Choice, Zero
from ssl_adapt.backbones.cell_edges import CellEdge
from ssl_adapt.backbones.operations import sum_edges
from ssl_adapt.errors import UserError

Granularity = Literal["op", "block", "branch"]
Shortcut = Literal["identity", "conv", "none"]


@dataclass(frozen=True)
class BlockPlan:
    """Shapes of one block.

    Attributes:
        in_channels: channels of what enters.
        out_channels: channels of what leaves.
        kernel: size of the depthwise convolution.
        expansion: channels of the depthwise convolution over `in_channels`.
        stride: of the depthwise convolution.
        has_expand: whether a 1x1 convolution comes first.
        shortcut: "none" is a place where an identity may appear; None is no edge at all.
        cell_type: blocks of the same type have edges of the same kind at the same places.
    """

    in_channels: int
    out_channels: int
    kernel: int
    expansion: int
    stride: int
    has_expand: bool
    shortcut: Shortcut | None
    cell_type: str

    @property
    def width(self) -> int:
        """Channels of the depthwise convolution."""
        return self.in_channels * self.expansion

    @property
    def candidates(self) -> tuple[Choice, ...]:
        """What the convolutions may become; not none where nothing else leads on, as that would cut the network."""
        return CHOICES if self.shortcut is not None else ("original", "identity")


class InvertedResidual(nn.Module):
    """1x1, depthwise and 1x1 convolutions, the last without activation, beside a shortcut.

    The names of the parameters are the same for both granularities; the names of the edges are not.

    Args:
        plan: the shapes.
        granularity: "op" makes each of the convolutions an edge, "block" the three together; "branch" is as "op", as
            the network then declares its own edges.
        activation: after the first two convolutions.
        eps: of every BatchNorm.

    Source: Sandler et al. 2018, section 3.3.
    """

    def __init__(
        self,
        plan: BlockPlan,
        *,
        granularity: Granularity = "op",
        activation: type[nn.Module] = nn.ReLU,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.cell_type = plan.cell_type
        self.out_channels, self.stride = plan.out_channels, plan.stride
        self.granularity = granularity
        self.conv = _create_branch(plan, activation, eps)
        self.shortcut = _create_shortcut(plan, eps)
        branch_edges = (block_edge(plan),) if granularity == "block" else operation_edges(plan)
        self.edges = (*branch_edges, *shortcut_edges(plan))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x (B, in, H, W) -> (B, out, H / stride, W / stride); `before` is not used by this block."""
        if self.granularity == "block":
            return sum_edges((self.conv, x), (self.shortcut, x))
        *inner, last = self.conv  # the last edge enters the node "out", beside the shortcut
        hidden = x
        for module in inner:
            hidden = module(hidden)
        return sum_edges((last, hidden), (self.shortcut, x))


def operation_edges(plan: BlockPlan) -> tuple[CellEdge, ...]:
    """An edge for each convolution of the block, through the nodes 1 and 2."""
    inside, width, candidates = plan.in_channels, plan.width, plan.candidates
    depthwise = f"depthwise {plan.kernel}x{plan.kernel}"
    source = "1" if plan.has_expand else "in"
    edges = (
        CellEdge("conv.conv1", "operation", "conv 1x1", inside, width, 1, "in", "1", candidates),
        CellEdge("conv.conv2", "operation", depthwise, width, width, plan.stride, source, "2", candidates),
        CellEdge("conv.conv3", "operation", "conv 1x1", width, plan.out_channels, 1, "2", "out", candidates),
    )
    return edges if plan.has_expand else edges[1:]


def block_edge(plan: BlockPlan) -> CellEdge:
    """One edge for all convolutions of the block, labelled with expansion and kernel: "mb6 7x7"."""
    label = f"mb{plan.expansion} {plan.kernel}x{plan.kernel}"
    shape = plan.in_channels, plan.out_channels, plan.stride
    return CellEdge("conv", "operation", label, *shape, "in", "out", plan.candidates)


def shortcut_edges(plan: BlockPlan) -> tuple[CellEdge, ...]:
    """The edge of the shortcut, if the block has one."""
    shape = plan.in_channels, plan.out_channels, plan.stride
    if plan.shortcut is None:
        return ()
    if plan.shortcut == "conv":
        return (CellEdge("shortcut", "operation", "conv 1x1", *shape, "in", "out"),)
    return (CellEdge("shortcut", plan.shortcut, plan.shortcut, *shape, "in", "out"),)


def create_norm_conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1, eps: float = 1e-5
) -> nn.Sequential:
    """Convolution without bias, then BatchNorm: (B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride)).

    The convolution starts with He's variance for the fan-out of one group: a depthwise one keeps its signal's
    scale, which eps 1e-3 would otherwise cut.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.normal_(conv.weight, std=math.sqrt(2 * groups / (kernel * kernel * out_channels)))
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels, eps=eps)))


def scale_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, and at least 1."""
    return max(1, round(channels * width))


def check_shape_arguments(granularity: str, width: float) -> None:
    """Refuse a granularity or a width that no network of these blocks has.

    Raises:
        ValueError: naming the argument and what it may be.
    """
    if granularity not in get_args(Granularity):
        raise UserError(f"granularity={granularity!r} is not one of {', '.join(get_args(Granularity))}")
    if not width > 0:
        raise UserError(f"width={width} multiplies the channels: give a positive number")


def _create_branch(plan: BlockPlan, activation: type[nn.Module], eps: float) -> nn.Sequential:
    branch = nn.Sequential()
    if plan.has_expand:
        branch.add_module("conv1", create_norm_conv(plan.in_channels, plan.width, 1, eps=eps))
        branch.add_module("act1", activation())
    depthwise = create_norm_conv(plan.width, plan.width, plan.kernel, plan.stride, groups=plan.width, eps=eps)
    branch.add_module("conv2", depthwise)
    branch.add_module("act2", activation())
    branch.add_module("conv3", create_norm_conv(plan.width, plan.out_channels, 1, eps=eps))
    return branch


def _create_shortcut(plan: BlockPlan, eps: float) -> nn.Module:
    if plan.shortcut == "identity":
        return nn.Identity()
    if plan.shortcut == "conv":
        return create_norm_conv(plan.in_channels, plan.out_channels, 1, plan.stride, eps=eps)
    return Zero(plan.out_channels, plan.stride)
