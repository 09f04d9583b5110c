"""The operations of a genotype's edges.

Source: https://github.com/quark0/darts, cnn/operations.py, with PyTorch's own initialisation, as there. Deviations:
no ReLU works in place, as an edge's input has other readers; sizes that are odd are rounded up.
"""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath as TimmDropPath
from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Zero
from ssl_adapt.backbones.genotypes import OPERATIONS
from ssl_adapt.errors import UserError


class DropPath(TimmDropPath):
    """Zeroes an operation's output for some images in training, and divides the others' by the share that is kept.

    `drop_prob` may be changed at any time. Identities have none of it.
    """

    commutes_with_scale = True  # so that the BatchNorm before it still ends the operation


class FactorizedConv(nn.Module):
    """Two 1x1 convolutions of stride 2, the second one pixel further, whose outputs are concatenated."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, half, 1, 2, bias=False)
        self.conv2 = nn.Conv2d(in_channels, out_channels - half, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / 2), ceil(W / 2))."""
        height, width = x.shape[-2:]
        shifted = F.pad(x, (-1, width % 2, -1, height % 2))  # its gradient stays channels-last; a slice's does not
        return torch.cat((self.conv1(x), self.conv2(shifted)), dim=1)


def create_factorized_reduce(in_channels: int, out_channels: int) -> nn.Sequential:
    """ReLU-conv-BN that halves height and width and sees every pixel: (B, in, H, W) -> (B, out, H / 2, W / 2)."""
    return _sequence(nn.ReLU(), FactorizedConv(in_channels, out_channels), nn.BatchNorm2d(out_channels))


def create_relu_conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU-conv-BN: (B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return _sequence(nn.ReLU(), conv, nn.BatchNorm2d(out_channels))


def create_operation(name: str, channels: int, stride: int) -> nn.Module:
    """The operation of that name: (B, channels, H, W) -> (B, channels, ceil(H / stride), ceil(W / stride)).

    It ends with a `DropPath`, set to 0, unless it is an identity or none.

    Raises:
        ValueError: if there is no such operation.
    """
    if name not in OPERATIONS:
        raise UserError(f"unknown operation {name!r}; available: {', '.join(OPERATIONS)}")
    if name == "none":
        return Zero(channels, stride)
    if name == "skip_connect" and stride == 1:
        return nn.Identity()
    operation = _create_computing(name, channels, stride)
    operation.add_module("drop_path", DropPath(0.0))
    return operation


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Give all drop-paths of a network the probability `rate`, from 0 to below 1.

    Raises:
        ValueError: for another rate.
    """
    if not 0 <= rate < 1:
        raise UserError(f"drop_path_rate={rate}: give a probability from 0 to below 1")
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = rate


def _create_computing(name: str, channels: int, stride: int) -> nn.Sequential:
    if name == "skip_connect":
        return create_factorized_reduce(channels, channels)
    if name == "conv_7x1_1x7":
        return _create_cross_conv(channels, stride)
    kind, _, size = name.rpartition("_")
    kernel = int(size[0])
    if kind == "max_pool":
        return nn.Sequential(OrderedDict(pool=nn.MaxPool2d(kernel, stride, kernel // 2)))
    if kind == "avg_pool":
        return nn.Sequential(OrderedDict(pool=nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)))
    if kind == "sep_conv":
        first = _create_depthwise(channels, kernel, stride)
        return nn.Sequential(OrderedDict(first=first, second=_create_depthwise(channels, kernel)))
    if kind == "dil_conv":
        return _create_depthwise(channels, kernel, stride, dilation=2)
    return create_relu_conv_bn(channels, channels, kernel, stride)


def _create_depthwise(channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    return _sequence(nn.ReLU(), depthwise, nn.BatchNorm2d(channels), pointwise=pointwise)


def _create_cross_conv(channels: int, stride: int) -> nn.Sequential:
    row = nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False)
    column = nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False)
    return _sequence(nn.ReLU(), row, nn.BatchNorm2d(channels), column=column)


def _sequence(relu: nn.Module, conv: nn.Module, bn: nn.Module, **between: nn.Module) -> nn.Sequential:
    return nn.Sequential(cast("OrderedDict[str, nn.Module]", OrderedDict(relu=relu, conv=conv, **between, bn=bn)))
