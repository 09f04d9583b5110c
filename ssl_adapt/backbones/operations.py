"""Operations that the backbones share."""

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Source, Zero
from ssl_adapt.adaptation.scaled_sum import Term, sum_terms


def create_conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then BatchNorm: (B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def sum_edges(*edges: tuple[nn.Module, Tensor | Source]) -> Tensor:
    """A node of the graph: the sum of edge(x) over (edge, x), in which `Zero` costs nothing."""
    terms: list[Term] = []
    for edge, x in edges:
        if not isinstance(edge, Zero):
            source = x if isinstance(x, Source) else Source(x, edge)
            terms += source.terms(edge)
    if terms:
        return sum_terms(terms)
    zero, x = edges[0]  # every edge is none
    return cast(Tensor, zero(x.x if isinstance(x, Source) else x))
