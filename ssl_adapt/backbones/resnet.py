"""ResNets for small images that declare their edges: `resnet20`, `resnet20_bottleneck` and `resnet50_cifar`."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from timm.models import generate_default_cfgs, register_model
from torch import nn

from ssl_adapt.backbones.cell_network import CellNetwork, Layout, create_cell_network, small_image_cfg
from ssl_adapt.backbones.operations import create_conv_bn
from ssl_adapt.backbones.resnet_blocks import BLOCKS, BlockName, Shortcut, plan_blocks
from ssl_adapt.errors import UserError

Granularity = Literal["op", "branch"]


def create_resnet(
    *,
    block: BlockName,
    layers: Sequence[int],
    width: int,
    shortcut: Shortcut,
    granularity: Granularity = "op",
    in_chans: int = 3,
    **kwargs: Any,
) -> CellNetwork:
    """A ResNet with a 3x3 stem and no max-pooling.

    Every convolution (with its BatchNorm) and every shortcut of a block is an edge, and so are a bottleneck's
    null edges. The stem and the classifier are not.

    Args:
        block: "basic" or "bottleneck".
        layers: blocks in each stage.
        width: channels of the stem and of the first stage.
        shortcut: where the shape changes, "A" subsamples and zero-pads, "B" is a 1x1 convolution with BatchNorm.
        granularity: "op" makes each operation of a block an edge, "branch" each residual block that keeps its input's
            shape: it may become its input.
        in_chans: channels of the image.
        kwargs: num_classes, global_pool, drop_rate and architecture of `CellNetwork`.

    Raises:
        ValueError: if an argument is none of these.

    Source: He et al. 2016 for both blocks; https://github.com/leftthomas/SimCLR for the stem.
    """
    _check_arguments(block, layers, width, shortcut, granularity)
    stem = create_conv_bn(in_chans, width, 3)
    stem.append(nn.ReLU())
    stages = [[BLOCKS[block](plan, shortcut) for plan in stage] for stage in plan_blocks(block, layers, width)]
    sizes = {"block": block, "layers": list(layers), "width": width}
    model_args = {**sizes, "shortcut": shortcut, "granularity": granularity, "in_chans": in_chans}
    layout = Layout(stem, width, 1, stages, num_features=stages[-1][-1].out_channels)
    return CellNetwork(layout, model_args=model_args, **kwargs)


def _check_arguments(block: str, layers: Sequence[int], width: int, shortcut: str, granularity: str) -> None:
    if block not in BLOCKS:
        raise UserError(f"block={block!r} is not one of {', '.join(BLOCKS)}")
    if shortcut not in ("A", "B"):
        raise UserError(f"shortcut={shortcut!r} is not one of A, B")
    if granularity not in get_args(Granularity):
        raise UserError(f"granularity={granularity!r} is not one of {', '.join(get_args(Granularity))}")
    if not layers or min(*layers, width) < 1:
        raise UserError(f"layers={list(layers)} and width={width}: give at least one stage, and positive numbers")


default_cfgs = generate_default_cfgs(
    {
        "resnet20": small_image_cfg(reduction=4),
        "resnet20_bottleneck": small_image_cfg(reduction=4),
        "resnet50_cifar": small_image_cfg(reduction=8),
    }
)


def _create_resnet(variant: str, pretrained: bool, defaults: dict[str, Any], **kwargs: Any) -> CellNetwork:
    stages = len(kwargs.get("layers", defaults["layers"]))
    return create_cell_network(create_resnet, variant, pretrained, defaults, stages, kwargs)


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ResNet20 for 32 px images: 269,722 parameters with 10 classes; `shortcut="B"` gives 272,474.

    Source: He et al. 2016, section 4.2.
    """
    defaults = {"block": "basic", "layers": (3, 3, 3), "width": 16, "shortcut": "A"}
    return _create_resnet("resnet20", pretrained, defaults, **kwargs)


@register_model
def resnet20_bottleneck(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """Twenty layers in bottlenecks: 339,060 parameters without a classifier, and null edges to find.

    Source: ours; the blocks of `resnet50_cifar` at the size of `resnet20`, for quick runs on a CPU.
    """
    defaults = {"block": "bottleneck", "layers": (2, 2, 2), "width": 20, "shortcut": "B"}
    return _create_resnet("resnet20_bottleneck", pretrained, defaults, **kwargs)


@register_model
def resnet50_cifar(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ResNet50 with a 3x3 stem and no max-pooling: 23,500,352 parameters without a classifier.

    Source: He et al. 2016; the stem as in https://github.com/leftthomas/SimCLR.
    """
    defaults = {"block": "bottleneck", "layers": (3, 4, 6, 3), "width": 64, "shortcut": "B"}
    return _create_resnet("resnet50_cifar", pretrained, defaults, **kwargs)
