"""ResNets for small images that declare their edges: `resnet20`, `resnet20_bottleneck` and `resnet50_cifar`."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch.nn.functional as F
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.adaptation.edge import EdgeSpec, Kind
from ssl_adapt.backbones.operations import create_conv_bn
from ssl_adapt.backbones.resnet_blocks import (
    BLOCKS,
    EXPANSION,
    BlockName,
    Edge,
    Shortcut,
    create_shortcut,
    plan_blocks,
)


class ResNet(nn.Module):
    """A ResNet with a 3x3 stem and no max-pooling, under timm's backbone contract.

    Every convolution (with its BatchNorm) and every shortcut of a block is an edge, and so are a bottleneck's
    null edges. The stem and the classifier are not.

    Args:
        block: "basic" or "bottleneck".
        layers: blocks in each stage.
        width: channels of the stem and of the first stage.
        shortcut: where the shape changes, "A" subsamples and zero-pads, "B" is a 1x1 convolution with BatchNorm.
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the image.
        global_pool: timm's name of the pooling; "" leaves it out.
        drop_rate: dropout before the classifier.
        architecture: the choices to apply (an Architecture or its JSON values); None is the plain network.

    Raises:
        ValueError: if an argument is none of these.

    Source: He et al. 2016 for both blocks; https://github.com/leftthomas/SimCLR for the stem.
    """

    def __init__(
        self,
        *,
        block: BlockName,
        layers: Sequence[int],
        width: int,
        shortcut: Shortcut,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        architecture: Architecture | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(block, layers, width, shortcut)
        self.block = block
        self.model_args: dict[str, Any] = {"block": block, "layers": list(layers), "width": width, "shortcut": shortcut}
        self.model_args |= {"in_chans": in_chans}
        self.plans = plan_blocks(block, layers, width)
        self.stem = create_conv_bn(in_chans, width, 3)
        self.stages = [f"layer{stage + 1}" for stage in range(len(layers))]
        for stage in self.stages:
            blocks = [
                BLOCKS[block](plan, create_shortcut(plan, shortcut))
                for plan in self.plans
                if plan.name.startswith(f"{stage}.")
            ]
            setattr(self, stage, nn.ModuleList(blocks))
        self.feature_info = [{"num_chs": width, "reduction": 1, "module": "stem"}]
        self.feature_info += [
            {"num_chs": width * 2**s * EXPANSION[block], "reduction": 2**s, "module": stage}
            for s, stage in enumerate(self.stages)
        ]
        self.num_features = self.head_hidden_size = self.plans[-1].out_channels
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)
        if architecture is not None:
            if not isinstance(architecture, Architecture):
                architecture = Architecture.from_dict(architecture)
            apply_architecture(self, architecture)

    def edge_specs(self) -> list[EdgeSpec]:
        """The edges, in the order in which the forward pass meets them."""
        specs = []
        for plan in self.plans:
            cell_type = "reduction" if plan.changes_shape else "normal"
            is_learnt = plan.changes_shape and self.model_args["shortcut"] == "B"
            kind: Kind = "operation" if is_learnt else "identity"
            shortcut: Edge = ("shortcut", kind, plan.in_channels, plan.out_channels, plan.stride)
            for edge in (*BLOCKS[self.block].edges(plan), shortcut):
                specs.append(EdgeSpec(f"{plan.name}.{edge[0]}", *edge[1:], plan.name, cell_type, edge[0]))
        return specs

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) -> the last stage's output (B, num_features, H', W')."""
        *_, last = self._outputs(x)
        return last

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last stage's output -> logits (B, num_classes), or pooled features (B, num_features)."""
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) -> logits (B, num_classes), or features where there is no classifier."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The final features and the outputs of the stem (0) and the stages (1...), as timm's networks give them.

        Args:
            x: images (B, in_chans, H, W).
            indices: which outputs; an int n gives the last n, None all.
            norm: without effect, as the network has no final norm.
            stop_early: stop after the last output asked for.
            output_fmt: "NCHW", the only one.
            intermediates_only: leave the final features out of the answer.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r}: a ResNet has 'NCHW' outputs only")
        wanted, last = feature_take_indices(len(self.feature_info), _as_list(indices))
        outputs = list(islice(self._outputs(x), last + 1 if stop_early else None))
        intermediates = [output for index, output in enumerate(outputs) if index in wanted]
        return intermediates if intermediates_only else (outputs[-1], intermediates)

    def _outputs(self, x: Tensor) -> Iterator[Tensor]:
        """The outputs of the stem and of every stage, one after the other."""
        before = x = F.relu(self.stem(x))
        yield x
        for stage in self.stages:
            for block in getattr(self, stage):
                before, x = x, block(before, x)
            yield x

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last wanted output and, with `prune_head`, the classifier; the indices kept."""
        wanted, last = feature_take_indices(len(self.feature_info), _as_list(indices))
        for stage in self.stages[last:]:
            delattr(self, stage)
        self.stages = self.stages[:last]
        self.plans = [plan for plan in self.plans if plan.name.partition(".")[0] in self.stages]
        if prune_head:
            self.reset_classifier(0, "")
        return list(wanted)

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Start a new classifier with `num_classes` outputs (0: none) and, if given, another pooling."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.model_args["global_pool"] = global_pool
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Parameter groups for layer-wise decay, as timm's optimiser factory asks for them."""
        return {"stem": r"^stem", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Part of timm's contract; recomputation is not offered here.

        Raises:
            ValueError: if `enable` is true.
        """
        if enable:
            raise ValueError("gradient checkpointing is not available for this ResNet")


def _check_arguments(block: str, layers: Sequence[int], width: int, shortcut: str) -> None:
    if block not in BLOCKS:
        raise ValueError(f"block={block!r} is not one of {', '.join(BLOCKS)}")
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut={shortcut!r} is not one of A, B")
    if not layers or min(*layers, width) < 1:
        raise ValueError(f"layers={list(layers)} and width={width}: give at least one stage, and positive numbers")


def _as_list(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return list(indices) if isinstance(indices, Sequence) else indices


def _cfg(image_px: int = 32) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, image_px, image_px),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2023, 0.1994, 0.2010),
        "first_conv": "stem.conv",
        "classifier": "fc",
    }


default_cfgs = generate_default_cfgs({"resnet20": _cfg(), "resnet20_bottleneck": _cfg(), "resnet50_cifar": _cfg()})


def _create_resnet(variant: str, pretrained: bool, defaults: dict[str, Any], **kwargs: Any) -> ResNet:
    stages = len(kwargs.get("layers", defaults["layers"]))
    feature_cfg = {"out_indices": tuple(range(stages + 1)), "feature_cls": "getter"}
    model: ResNet = build_model_with_cfg(ResNet, variant, pretrained, feature_cfg=feature_cfg, **(defaults | kwargs))
    return model


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet20 for 32 px images: 269,722 parameters with 10 classes; `shortcut="B"` gives 272,474.

    Source: He et al. 2016, section 4.2.
    """
    defaults = {"block": "basic", "layers": (3, 3, 3), "width": 16, "shortcut": "A"}
    return _create_resnet("resnet20", pretrained, defaults, **kwargs)


@register_model
def resnet20_bottleneck(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Twenty layers in bottlenecks: 339,060 parameters without a classifier, and null edges to find.

    Source: ours; the blocks of `resnet50_cifar` at the size of `resnet20`, for quick runs on a CPU.
    """
    defaults = {"block": "bottleneck", "layers": (2, 2, 2), "width": 20, "shortcut": "B"}
    return _create_resnet("resnet20_bottleneck", pretrained, defaults, **kwargs)


@register_model
def resnet50_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet50 with a 3x3 stem and no max-pooling: 23,500,352 parameters without a classifier.

    Source: He et al. 2016; the stem as in https://github.com/leftthomas/SimCLR.
    """
    defaults = {"block": "bottleneck", "layers": (3, 4, 6, 3), "width": 64, "shortcut": "B"}
    return _create_resnet("resnet50_cifar", pretrained, defaults, **kwargs)
