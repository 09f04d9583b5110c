"""The network that all our backbones are: a stem, stages of cells, and a head, under timm's backbone contract."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.backbones.cell_edges import Cell, declare_branch, declare_edges
from ssl_adapt.errors import UserError


@dataclass(frozen=True)
class Layout:
    """The parts of a network.

    Attributes:
        stem: images (B, in_chans, H, W) -> (B, stem_channels, H / stem_stride, W / stem_stride).
        stem_channels: see `stem`.
        stem_stride: see `stem`.
        stages: the cells of each stage, in forward order.
        final: from the last cell's output to the features that are pooled, or None.
        num_features: channels of what is pooled.
        auxiliary: a second head in training, for classifiers alone.
    """

    stem: nn.Module
    stem_channels: int
    stem_stride: int
    stages: Sequence[Sequence[nn.Module]]
    num_features: int
    final: nn.Module | None = None
    auxiliary: "Auxiliary | None" = None


class Auxiliary(NamedTuple):
    """A head on the output of the cell at `place` ("layer3.0"); create(num_classes) gives the module."""

    place: str
    create: Any


class CellNetwork(nn.Module):
    """Stem, stages of cells named layer1, layer2, ..., pooling and a linear classifier.

    Args:
        layout: the parts.
        model_args: arguments that build the plain network again, JSON values only.
        num_classes: 0 leaves the classifier out.
        global_pool: timm's name of the pooling; "" leaves it out.
        drop_rate: dropout before the classifier.
        architecture: the choices to apply (an Architecture or its JSON values); None is the plain network.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        model_args: Mapping[str, Any],
        num_classes: int = 10,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        architecture: Architecture | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model_args: dict[str, Any] = dict(model_args)
        self.stem = layout.stem
        self.stages = [f"layer{stage + 1}" for stage in range(len(layout.stages))]
        reduction = layout.stem_stride
        self.feature_info = [{"num_chs": layout.stem_channels, "reduction": reduction, "module": "stem"}]
        for stage, cells in zip(self.stages, layout.stages, strict=True):
            setattr(self, stage, nn.ModuleList(cells))
            for cell in cast(Sequence[Cell], cells):
                reduction *= cell.stride
            last = cast(Cell, cells[-1])
            self.feature_info.append({"num_chs": last.out_channels, "reduction": reduction, "module": stage})
        declare = declare_branch if model_args.get("granularity") == "branch" else declare_edges
        self._edges = tuple(spec for path, cell in self._cells() for spec in declare(path, cell))
        self.final = layout.final
        self._create_auxiliary = layout.auxiliary
        self.auxiliary: nn.Module | None = None
        self.num_features = self.head_hidden_size = layout.num_features
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.reset_classifier(num_classes, global_pool)
        if architecture is not None:
            if not isinstance(architecture, Architecture):
                architecture = Architecture.from_dict(architecture)
            apply_architecture(self, architecture)

    def edge_specs(self) -> list[EdgeSpec]:
        """The edges, in the order in which the forward pass meets them."""
        return [spec for spec in self._edges if spec.name.partition(".")[0] in self.stages]

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) -> features (B, num_features, H', W')."""
        for _, output in self._outputs(x):
            last = output
        return self._finish(last)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """`forward_features`' output -> logits (B, num_classes), or pooled features (B, num_features)."""
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Any:
        """Images (B, in_chans, H, W) -> logits (B, num_classes), or features where there is no classifier.

        A network with an auxiliary head gives the pair (logits, auxiliary logits) in training, and only there.
        """
        if self.auxiliary is None or not self.training:
            return self.forward_head(self.forward_features(x))
        assert self._create_auxiliary is not None
        for path, output in self._outputs(x):
            last = output
            if path == self._create_auxiliary.place:
                auxiliary_logits = self.auxiliary(output)
        return self.forward_head(self._finish(last)), auxiliary_logits

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
            raise UserError(f"output_fmt={output_fmt!r}: this network has 'NCHW' outputs only")
        wanted, last = feature_take_indices(len(self.feature_info), _as_list(indices))
        ends = {"stem", *(f"{stage}.{len(getattr(self, stage)) - 1}" for stage in self.stages)}
        outputs = (output for path, output in self._outputs(x) if path in ends)
        taken = list(islice(outputs, last + 1 if stop_early else None))
        intermediates = [output for index, output in enumerate(taken) if index in wanted]
        if intermediates_only:
            return intermediates
        is_whole = len(taken) == len(self.feature_info)
        return self._finish(taken[-1]) if is_whole else taken[-1], intermediates

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last wanted output and, with `prune_head`, the classifier; the indices kept."""
        wanted, last = feature_take_indices(len(self.feature_info), _as_list(indices))
        if self.stages[last:]:
            self.final = None
        for stage in self.stages[last:]:
            delattr(self, stage)
        self.stages = self.stages[:last]
        if prune_head:
            self.final = None
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
        if self._create_auxiliary is not None:
            self.auxiliary = self._create_auxiliary.create(num_classes) if num_classes else None

    def remove_auxiliary(self) -> None:
        """Take the auxiliary head away, which is of use in training alone."""
        self._create_auxiliary = self.auxiliary = None

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Parameter groups for layer-wise decay, as timm's optimiser factory asks for them."""
        return {"stem": r"^stem", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let a pass with gradients keep the inputs of the stem and the cells alone; backward computes the rest again.

        As in timm's networks BatchNorm's running statistics then move twice; `training.recomputation` has a remedy.
        """
        self.grad_checkpointing = enable

    def _cells(self) -> Iterator[tuple[str, Any]]:
        for stage in self.stages:
            for index, cell in enumerate(getattr(self, stage)):
                yield f"{stage}.{index}", cell

    def _outputs(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The outputs of the stem and of every cell, one after the other, each with its path."""
        before = x = self._call(self.stem, x)
        yield "stem", x
        for path, cell in self._cells():
            before, x = x, self._call(cell, x, before)
            yield path, x

    def _call(self, module: Any, *inputs: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(module, *inputs))
        return cast(Tensor, module(*inputs))

    def _finish(self, x: Tensor) -> Tensor:
        return x if self.final is None else self.final(x)


def create_cell_network(
    create: Any, variant: str, pretrained: bool, defaults: Mapping[str, Any], stages: int, kwargs: Mapping[str, Any]
) -> CellNetwork:
    """The network that `create(**arguments)` gives, with timm's weights, configuration and feature extraction."""
    feature_cfg = {"out_indices": tuple(range(stages + 1)), "feature_cls": "getter"}
    model: CellNetwork = build_model_with_cfg(
        create, variant, pretrained, feature_cfg=feature_cfg, **{**defaults, **kwargs}
    )
    if isinstance(model, CellNetwork):  # not its feature extractor
        cfg = cast(dict[str, Any], model.pretrained_cfg)
        cfg["pool_size"] = tuple(-(-px // model.feature_info[-1]["reduction"]) for px in cfg["input_size"][1:])
    return model


def small_image_cfg(image_px: int = 32, *, reduction: int) -> dict[str, Any]:
    """timm's configuration of a network for CIFAR-sized images, whose features are `reduction` times as small."""
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, image_px, image_px),
        "pool_size": (image_px // reduction, image_px // reduction),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2023, 0.1994, 0.2010),
        "first_conv": "stem.conv",
        "classifier": "fc",
    }


def _as_list(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return list(indices) if isinstance(indices, Sequence) else indices
