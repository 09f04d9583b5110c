"""Operations that the backbones share."""

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn

from ssl_adapt.adaptation.edge import MixedEdge, Zero


def create_conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then BatchNorm: (B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def sum_edges(*edges: tuple[nn.Module, Tensor]) -> Tensor:
    """A node of the graph: the sum of edge(x) over (edge, x), in which `Zero` costs nothing."""
    total: Tensor | None = None
    is_mixed = False
    for edge, x in edges:
        if isinstance(edge, Zero):
            continue
        if isinstance(edge, MixedEdge):
            total = edge(x, total=total) if is_mixed or total is None else total + edge(x)
            is_mixed = True
        else:
            total = edge(x) if total is None else total + edge(x)
            is_mixed = False
    if total is None:  # every edge is none
        zero, x = edges[0]
        return cast(Tensor, zero(x))
    return total
