"""Networks of genotype cells: DARTS, and ResNets and MobileNetV2 in the cell form of NAT."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from ssl_adapt.backbones.cell_network import Auxiliary, CellNetwork, Layout, create_cell_network, small_image_cfg
from ssl_adapt.backbones.cell_operations import set_drop_path
from ssl_adapt.backbones.cells import GenotypeCell
from ssl_adapt.backbones.genotypes import Genotype, load_genotype
from ssl_adapt.errors import UserError


def create_darts(
    *,
    genotype: str | Path | Mapping[str, Any] | Genotype,
    channels: int,
    cells: int,
    auxiliary: bool = False,
    drop_path_rate: float = 0.0,
    in_chans: int = 3,
    **kwargs: Any,
) -> CellNetwork:
    """A network of `cells` genotype cells; those at one and two thirds of the depth halve the size and double C.

    Every operation, skip and none of the genotype is an edge. A stage begins at each reduction cell.

    Args:
        genotype: a published name such as "DARTS_V2", a JSON file, its values, or the genotype itself.
        channels: width C of the nodes of the first cells; the stem has 3 C.
        cells: how many cells; with one or two of them, the first one reduces already.
        auxiliary: add a second classifier, on the last reduction cell, which is used in training alone.
        drop_path_rate: probability that an image skips an operation in training; identities are exempt.
        in_chans: channels of the image.
        kwargs: num_classes, global_pool, drop_rate and architecture of `CellNetwork`.

    Raises:
        ValueError: if an argument is none of these.

    Source: Liu et al. 2019, https://github.com/quark0/darts, cnn/model.py (the network for CIFAR).
    """
    if min(channels, cells) < 1:
        raise UserError(f"channels={channels} and cells={cells}: give positive numbers")
    genotype = load_genotype(genotype)
    stages = _create_stages(genotype, channels, cells)
    out_channels: int = stages[-1][-1].out_channels
    # 2 * cells // 3 is the last cell that reduces, and so the first of the last stage
    place, create = f"layer{len(stages)}.0", partial(create_auxiliary_head, out_channels)
    stem = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_chans, 3 * channels, 3, padding=1, bias=False),
            bn=nn.BatchNorm2d(3 * channels),
        )
    )
    layout = Layout(
        stem, 3 * channels, 1, stages, out_channels, auxiliary=Auxiliary(place, create) if auxiliary else None
    )
    model_args = {"genotype": genotype.to_dict(), "channels": channels, "cells": cells, "in_chans": in_chans}
    model_args["auxiliary"] = False  # an export has none
    network = CellNetwork(layout, model_args=model_args, **kwargs)
    set_drop_path(network, drop_path_rate)
    return network


def create_auxiliary_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """A classifier for the middle of the network: (B, in_channels, H, W) -> logits (B, num_classes).

    Source: `AuxiliaryHeadCIFAR` of https://github.com/quark0/darts. Deviation: pooling to 2x2 adapts to the size
    of the images, where DARTS averages 5x5 windows of 8x8 pixels.
    """
    return nn.Sequential(
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Conv2d(in_channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, num_classes),
    )


def _create_stages(genotype: Genotype, channels: int, cells: int) -> list[list[GenotypeCell]]:
    reductions = reduction_cells(cells)
    stages: list[list[GenotypeCell]] = []
    before = previous = 3 * channels
    for index in range(cells):
        reduces = index in reductions
        if reduces:
            channels *= 2
        if reduces or not stages:
            stages.append([])
        cell = GenotypeCell(
            genotype.reduction if reduces else genotype.normal,
            (before, previous),
            channels,
            reduces=reduces,
            follows_reduction=index - 1 in reductions,
        )
        stages[-1].append(cell)
        before, previous = previous, cell.out_channels
    return stages


def reduction_cells(cells: int) -> set[int]:
    """The indices of the cells that reduce, at one and two thirds of the depth."""
    return {cells // 3, 2 * cells // 3}


NAMES = ("darts", "darts_cifar", "darts24_ssl", "resnet20_nat", "mobilenetv2_nat", "resnet50_nat")
default_cfgs = generate_default_cfgs({name: small_image_cfg(reduction=4) for name in NAMES})


def _create_variant(variant: str, pretrained: bool, defaults: dict[str, Any], **kwargs: Any) -> CellNetwork:
    cells = kwargs.get("cells", defaults["cells"])
    stages = len(reduction_cells(cells) | {0})  # a stage begins at each of these cells
    return create_cell_network(create_darts, variant, pretrained, defaults, stages, kwargs)


@register_model
def darts(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """DARTS_V2 with 9 cells of width 36, unless told otherwise: 1,184,050 parameters with 10 classes."""
    defaults = {"genotype": "DARTS_V2", "channels": 36, "cells": 9}
    return _create_variant("darts", pretrained, defaults, **kwargs)


@register_model
def darts_cifar(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """DARTS_V2 as published for CIFAR-10: 20 cells of width 36, 3,349,342 parameters with 10 classes."""
    defaults = {"genotype": "DARTS_V2", "channels": 36, "cells": 20}
    return _create_variant("darts_cifar", pretrained, defaults, **kwargs)


@register_model
def darts24_ssl(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """DARTS_V2 with 24 cells of width 90: 23,649,390 parameters without a classifier, for self-supervised runs."""
    defaults = {"genotype": "DARTS_V2", "channels": 90, "cells": 24}
    return _create_variant("darts24_ssl", pretrained, defaults, **kwargs)


@register_model
def resnet20_nat(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ResNet20 in the cell form of NAT: 326,458 parameters with 10 classes.

    Source: Guo et al. 2019, https://github.com/guoyongcs/NAT.
    """
    defaults = {"genotype": "ResBlock", "channels": 16, "cells": 9}
    return _create_variant("resnet20_nat", pretrained, defaults, **kwargs)


@register_model
def mobilenetv2_nat(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """MobileNetV2 in the cell form of NAT: 102,746 parameters with 10 classes.

    Source: Guo et al. 2019, https://github.com/guoyongcs/NAT.
    """
    defaults = {"genotype": "MobileNetV2", "channels": 16, "cells": 9}
    return _create_variant("mobilenetv2_nat", pretrained, defaults, **kwargs)


@register_model
def resnet50_nat(pretrained: bool = False, **kwargs: Any) -> CellNetwork:
    """ResNet50 in the cell form of NAT, as wide as brings it near the 23.5 M parameters of ResNet50.

    Source: ours, after the pattern of Guo et al. 2019.
    """
    defaults = {"genotype": "Bottleneck", "channels": 122, "cells": 16}
    return _create_variant("resnet50_nat", pretrained, defaults, **kwargs)
