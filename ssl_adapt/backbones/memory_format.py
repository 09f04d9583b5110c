"""The memory format of a network: channels-last, except where a CPU kernel computes wrong gradients in it."""

import torch
from torch import nn

from ssl_adapt.adaptation.edge import Adaptable

# oneDNN issue 6035 (uxlfoundation/oneDNN), present in the oneDNN 3.12 of torch 2.14: the backward pass of a
# channels-last 1x1 convolution of stride > 1 writes past its workspace if it has fewer input channels than a SIMD
# register has floats: 8 with AVX2, 16 with AVX-512 (there seen at images of 64 px, not of 32). The heap is then
# corrupt, and gradients are wrong or the process dies. Grouped convolutions have other kernels. The
# rule is the same on every CPU, so that a run may move. This module may go once every torch that pyproject.toml allows
# has a oneDNN in which that is mended: the slow tests/backbones/test_instruction_sets.py shows whether it is, and
# docs/cpu_kernels.md what it found.
#
# A second defect of the same release: on a CPU with bfloat16 instructions the backward pass of a channels-last dilated
# convolution in bfloat16, grouped or not, gives gradients from memory that it has not written, or ends the process.
BROKEN_CHANNELS = range(1, 16)


def choose_memory_format(network: nn.Module, device: torch.device, *, bfloat16: bool = False) -> torch.memory_format:
    """The memory format for a network and its images on a device.

    Channels-last, the quicker one (on a GPU too, not run on one); contiguous on a CPU where the network has a
    convolution that oneDNN computes wrongly in channels-last, or an edge that may become one. The answer for a plain
    network holds while it adapts and after its fix.

    Args:
        network: the plain network, with all heads.
        device: where it is.
        bfloat16: whether its convolutions compute in bfloat16, by autocast or of themselves.
    """
    if device.type == "cpu" and (_has_broken_convolution(network, bfloat16) or _may_get_broken_convolution(network)):
        return torch.contiguous_format
    return torch.channels_last


def is_broken_channels_last(conv: nn.Conv2d, *, bfloat16: bool = False) -> bool:
    """Whether oneDNN computes this convolution's channels-last backward pass wrongly."""
    is_strided = set(conv.kernel_size) == {1} and max(conv.stride) > 1
    is_dilated = max(conv.dilation) > 1 and max(conv.kernel_size) > 1
    return (is_strided and conv.groups == 1 and conv.in_channels in BROKEN_CHANNELS) or (is_dilated and bfloat16)


def _has_broken_convolution(network: nn.Module, bfloat16: bool) -> bool:
    return any(
        isinstance(module, nn.Conv2d) and is_broken_channels_last(module, bfloat16=bfloat16)
        for module in network.modules()
    )


def _may_get_broken_convolution(network: nn.Module) -> bool:
    """Whether a learnt identity (`Project`) at one of the network's edges would be such a convolution."""
    return any(
        spec.stride > 1 and spec.in_channels in BROKEN_CHANNELS
        for module in network.modules()
        if isinstance(module, Adaptable)
        for spec in module.edge_specs()
    )
