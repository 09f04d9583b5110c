"""MobileNetV2 for small images, which declares its edges: `mobilenetv2_cifar`."""

from collections.abc import Sequence
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from ssl_adapt.backbones.cell_network import CellNetwork, Layout, create_cell_network, small_image_cfg
from ssl_adapt.backbones.inverted_residual import (
    BlockPlan,
    Granularity,
    InvertedResidual,
    Shortcut,
    check_shape_arguments,
    create_norm_conv,
    scale_channels,
)
from ssl_adapt.errors import UserError

# Expansion t, channels c, blocks n, stride s of the first of them.
SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, FINAL_CHANNELS = 32, 1280
CELL_TYPES: dict[Shortcut, str] = {"identity": "normal", "conv": "projection", "none": "reduction"}


def create_mobilenetv2(
    *,
    settings: Sequence[Sequence[int]] = SETTINGS,
    width: float = 1.0,
    granularity: Granularity = "op",
    in_chans: int = 3,
    **kwargs: Any,
) -> CellNetwork:
    """A MobileNetV2 with a 3x3 stem of stride 1, whose stages (layer1, layer2, ...) begin where the size halves.

    Blocks of stride 1 have a shortcut: the identity, or a 1x1 convolution where the channels change. The place of
    a shortcut beside a block of stride 2 is a none edge.

    Args:
        settings: rows of (expansion, channels, blocks, stride of the first block).
        width: multiplies all channels, the last convolution's too.
        granularity: "op" makes each convolution of a block an edge, "block" the three together, "branch" each residual
            block, which may become its input.
        in_chans: channels of the image.
        kwargs: num_classes, global_pool, drop_rate and architecture of `CellNetwork`.

    Raises:
        ValueError: if an argument is none of these.

    Source: Sandler et al. 2018, in the form of https://github.com/kuangliu/pytorch-cifar. Deviations: adaptive
    pooling, and He's initialisation instead of PyTorch's.
    """
    check_shape_arguments(granularity, width)
    rows = [list(row) for row in settings]
    if not rows or any(len(row) != 4 or min(row) < 1 for row in rows):
        raise UserError(f"settings={rows}: give rows of 4 positive numbers (expansion, channels, blocks, stride)")
    stem_channels, final_channels = scale_channels(STEM_CHANNELS, width), scale_channels(FINAL_CHANNELS, width)
    stem = create_norm_conv(in_chans, stem_channels, 3)
    stem.append(nn.ReLU())
    stages = [
        [InvertedResidual(plan, granularity=granularity) for plan in stage]
        for stage in plan_blocks(rows, width, granularity)
    ]
    final = create_norm_conv(stages[-1][-1].out_channels, final_channels, 1)
    final.append(nn.ReLU())
    model_args = {"settings": rows, "width": width, "granularity": granularity, "in_chans": in_chans}
    layout = Layout(stem, stem_channels, 1, stages, num_features=final_channels, final=final)
    return CellNetwork(layout, model_args=model_args, **kwargs)


def plan_blocks(settings: Sequence[Sequence[int]], width: float, granularity: Granularity) -> list[list[BlockPlan]]:
    """The shapes of the blocks of every stage; a row with a stride begins another stage."""
    stages: list[list[BlockPlan]] = []
    in_channels = scale_channels(STEM_CHANNELS, width)
    for expansion, channels, count, first_stride in settings:
        if not stages or first_stride > 1:
            stages.append([])
        out_channels = scale_channels(channels, width)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            shortcut: Shortcut = "none" if stride > 1 else "identity" if in_channels == out_channels else "conv"
            cell_type = CELL_TYPES[shortcut]
            if granularity == "block" and expansion == 1:  # the block is another operation, so another type of cell
                cell_type += "_unexpanded"
            plan = BlockPlan(in_channels, out_channels, 3, expansion, stride, True, shortcut, cell_type)
            stages[-1].append(plan)
            in_channels = out_channels
    return stages


default_cfgs = generate_default_cfgs({"mobilenetv2_cifar": small_image_cfg(reduction=8)})


@register_model
def mobilenetv2_cifar(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """MobileNetV2 for 32 px images: 2,296,922 parameters with 10 classes.

    Source: https://github.com/kuangliu/pytorch-cifar, models/mobilenetv2.py.
    """
    defaults = {"settings": SETTINGS, "width": 1.0, "granularity": "op"}
    later_rows = kwargs.get("settings", SETTINGS)[1:]
    stages = 1 + sum(row[3] > 1 for row in later_rows)
    return create_cell_network(create_mobilenetv2, "mobilenetv2_cifar", pretrained, defaults, stages, kwargs)
