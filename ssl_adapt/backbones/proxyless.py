"""The networks that ProxylessNAS found, which declare their edges, for ImageNet and for small images."""

from typing import Any, Literal, NamedTuple, get_args

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ssl_adapt.adaptation.edge import Zero
from ssl_adapt.backbones.cell_edges import CellEdge
from ssl_adapt.backbones.cell_network import CellNetwork, Layout, create_cell_network, small_image_cfg
from ssl_adapt.backbones.inverted_residual import (
    BlockPlan,
    Granularity,
    InvertedResidual,
    check_shape_arguments,
    create_norm_conv,
    scale_channels,
)
from ssl_adapt.backbones.operations import sum_edges
from ssl_adapt.errors import UserError

Target = Literal["mobile", "gpu", "cpu"]
EPS = 1e-3
ZERO = (0, 0)


class Found(NamedTuple):
    """A network as plain data: its rows are (channels, stride of the first block, blocks).

    A block is (kernel, expansion), or `ZERO`: the search chose no operation, and the shortcut is all there is.
    """

    stem: int
    rows: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]
    final: int


# Source: https://github.com/mit-han-lab/proxylessnas, the configurations of the three networks.
FOUND: dict[Target, Found] = {
    "mobile": Found(
        32,
        (
            (16, 1, ((3, 1),)),
            (32, 2, ((5, 3), (3, 3), ZERO, ZERO)),
            (40, 2, ((7, 3), (3, 3), (5, 3), (5, 3))),
            (80, 2, ((7, 6), (5, 3), (5, 3), (5, 3))),
            (96, 1, ((5, 6), (5, 3), (5, 3), (5, 3))),
            (192, 2, ((7, 6), (7, 6), (7, 3), (7, 3))),
            (320, 1, ((7, 6),)),
        ),
        1280,
    ),
    "gpu": Found(
        40,
        (
            (24, 1, ((3, 1),)),
            (32, 2, ((5, 3), ZERO, ZERO, ZERO)),
            (56, 2, ((7, 3), ZERO, ZERO, (3, 3))),
            (112, 2, ((7, 6), ZERO, ZERO, (5, 3))),
            (128, 1, ((5, 6), ZERO, (3, 3), (5, 3))),
            (256, 2, ((7, 6), (7, 6), (7, 6), (5, 6))),
            (432, 1, ((7, 6),)),
        ),
        1728,
    ),
    "cpu": Found(
        40,
        (
            (24, 1, ((3, 1),)),
            (32, 2, ((3, 6), (3, 3), (3, 3), (3, 3))),
            (48, 2, ((3, 6), (3, 3), (3, 3), (5, 3))),
            (88, 2, ((3, 6), ZERO, ZERO, (3, 3))),
            (104, 1, ((5, 6), (3, 3), (3, 3), (3, 3))),
            (216, 2, ((5, 6), (5, 3), (5, 3), (3, 3))),
            (360, 1, ((5, 6),)),
        ),
        1432,
    ),
}
STAGES = 5  # a row of stride 2 begins another one


class ZeroBlock(nn.Module):
    """A block without operation: a none edge beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cell_type = "zero"
        self.out_channels, self.stride = channels, 1
        self.conv = Zero()
        self.shortcut = nn.Identity()
        self.edges = (
            CellEdge("conv", "none", "none", channels, channels, 1, "in", "out"),
            CellEdge("shortcut", "identity", "identity", channels, channels, 1, "in", "out"),
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x as it is; `before` is not used by this block."""
        return sum_edges((self.conv, x), (self.shortcut, x))


def create_proxyless(
    *,
    target: Target,
    small_images: bool,
    width: float = 1.0,
    granularity: Granularity = "block",
    in_chans: int = 3,
    **kwargs: Any,
) -> CellNetwork:
    """A network that ProxylessNAS found. Its stages (layer1 to layer5) have the same names for all image sizes.

    Blocks that change the shape have no shortcut, so that none is no candidate of their convolutions.

    Args:
        target: the device that it was found for: "mobile", "gpu" or "cpu".
        small_images: stride 1 in the stem and in the first row that has a stride, for 32 px.
        width: multiplies all channels, the last convolution's too.
        granularity: "block" makes the convolutions of a block one edge, "op" each its own, "branch" each residual
            block, which may become its input.
        in_chans: channels of the image.
        kwargs: num_classes, global_pool, drop_rate and architecture of `CellNetwork`.

    Raises:
        ValueError: if an argument is none of these.

    Source: Cai et al. 2019, and https://github.com/mit-han-lab/proxylessnas: ReLU6, BatchNorm with eps
    1e-3. Deviation: `small_images` and the granularity "op" are ours.
    """
    check_shape_arguments(granularity, width)
    if target not in FOUND:
        raise UserError(f"target={target!r} is not one of {', '.join(get_args(Target))}")
    found = FOUND[target]
    stem_channels, final_channels = scale_channels(found.stem, width), scale_channels(found.final, width)
    stem_stride = 1 if small_images else 2
    stem = create_norm_conv(in_chans, stem_channels, 3, stem_stride, eps=EPS)
    stem.append(nn.ReLU6())
    stages: list[list[nn.Module]] = []
    in_channels = stem_channels
    for channels, row_stride, blocks in found.rows:
        if not stages or row_stride > 1:
            stages.append([])
        stride = 1 if small_images and len(stages) == 2 else row_stride
        out_channels = scale_channels(channels, width)
        for block in blocks:
            stages[-1].append(_create_block(in_channels, out_channels, stride, block, granularity))
            in_channels, stride = out_channels, 1
    assert len(stages) == STAGES
    final = create_norm_conv(in_channels, final_channels, 1, eps=EPS)
    final.append(nn.ReLU6())
    sizes = {"target": target, "small_images": small_images, "width": width}
    model_args = {**sizes, "granularity": granularity, "in_chans": in_chans}
    layout = Layout(stem, stem_channels, stem_stride, stages, num_features=final_channels, final=final)
    return CellNetwork(layout, model_args=model_args, **kwargs)


def _create_block(
    in_channels: int, out_channels: int, stride: int, block: tuple[int, int], granularity: Granularity
) -> nn.Module:
    if block == ZERO:
        return ZeroBlock(out_channels)
    kernel, expansion = block
    keeps_shape = in_channels == out_channels and stride == 1
    plan = BlockPlan(
        in_channels,
        out_channels,
        kernel,
        expansion,
        stride,
        has_expand=expansion > 1,
        shortcut="identity" if keeps_shape else None,
        cell_type="normal" if keeps_shape else "transition",
    )
    return InvertedResidual(plan, granularity=granularity, activation=nn.ReLU6, eps=EPS)


_IMAGENET_CFG = {
    **small_image_cfg(224, reduction=32),
    "num_classes": 1000,
    "crop_pct": 0.875,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
}
_CFGS: dict[str, dict[str, Any] | PretrainedCfg] = {}
for _target in FOUND:
    _CFGS |= {f"proxyless_{_target}": _IMAGENET_CFG, f"proxyless_{_target}_cifar": small_image_cfg(reduction=8)}
default_cfgs = generate_default_cfgs(_CFGS)


def _create_proxyless(target: Target, small_images: bool, pretrained: bool, kwargs: dict[str, Any]) -> CellNetwork:
    variant = f"proxyless_{target}_cifar" if small_images else f"proxyless_{target}"
    defaults = {"target": target, "small_images": small_images}
    return create_cell_network(create_proxyless, variant, pretrained, defaults, STAGES, kwargs)


@register_model
def proxyless_mobile(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ProxylessNAS-Mobile for 224 px images: 4,080,512 parameters with 1000 classes."""
    return _create_proxyless("mobile", False, pretrained, kwargs)


@register_model
def proxyless_gpu(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ProxylessNAS-GPU for 224 px images: wider and with fewer blocks."""
    return _create_proxyless("gpu", False, pretrained, kwargs)


@register_model
def proxyless_cpu(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ProxylessNAS-CPU for 224 px images: small kernels."""
    return _create_proxyless("cpu", False, pretrained, kwargs)


@register_model
def proxyless_mobile_cifar(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ProxylessNAS-Mobile for 32 px images: 2,812,322 parameters with 10 classes."""
    return _create_proxyless("mobile", True, pretrained, kwargs)


@register_model
def proxyless_gpu_cifar(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ProxylessNAS-GPU for 32 px images."""
    return _create_proxyless("gpu", True, pretrained, kwargs)


@register_model
def proxyless_cpu_cifar(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ProxylessNAS-CPU for 32 px images."""
    return _create_proxyless("cpu", True, pretrained, kwargs)
