"""The interface of an objective, by which the training loop uses it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ssl_adapt.data import Batch
from ssl_adapt.errors import UserError

Judge = Literal["kNN", "accuracy"]
MakeViews = Callable[[Tensor], list[Tensor]]  # uint8 images (B, 3, H, W) -> the views of each, such as `views.Views`


class Network(Protocol):
    """The network of an objective. Its parameters and buffers are all the state that an objective has.

    Called with the images of one view, it returns what the loss compares. All parameters that get gradients are used in
    that call only, as data-parallel wrappers require.

    Attributes:
        backbone: the network that adapts, is evaluated, and is exported.
        heads: the modules after it, in order; the first gives the projection, where there is one.
        teacher_backbones: moving averages of the backbone: they get no gradients, share its theta, and are fixed with
            it. Most objectives have none.
    """

    backbone: nn.Module
    heads: tuple[nn.Module, ...]
    teacher_backbones: tuple[nn.Module, ...]


class Objective(Protocol):
    """A training objective: a network, the views of a batch, the outputs for them, and the loss of the outputs.

    Each objective is a class in a file of its own. The methods here are the defaults, which fit most of them.

    Attributes:
        judge: how the backbone is evaluated: by kNN on its features, or by the accuracy of its classifier.
        needs_labels: whether a batch must have labels. The backbone then comes with a classifier for them.
        network: see `Network`.
        make_views: from images to their views.
    """

    judge: ClassVar[Judge] = "kNN"
    needs_labels: ClassVar[bool] = False
    network: Any  # a Network and an nn.Module; Python has no type for both
    make_views: MakeViews

    def views(self, batch: Batch) -> list[Tensor]:
        """The inputs of the network and the loss: tensors with a row for each image, on the batch's device.

        Images are normalised and float32. All draws come from torch's CPU generator. By default: the views.
        """
        return self.make_views(batch.images)

    def forward(self, network: nn.Module, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All that the loss needs, as tensors with a row for each image, including targets without gradient.

        So the loss depends on the outputs alone, and a batch may be taken in parts whose outputs are concatenated. By
        default: the network's output for each view.

        Args:
            network: the objective's network, or a wrapper of it; every layer with weights is used through its call.
            views: what `views` returned, or the same rows of each.
        """
        return tuple(network(view) for view in views)

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """A scalar in float32 (float64 for such outputs), outside autocast.

        Distributed: may be collective. Its mean over the processes is the loss of the whole batch, and the mean of
        the parameters' gradients its gradient.
        """
        ...

    def after_step(self, progress: float) -> None:
        """Called after a step of the weights, for a teacher's update, for example; does nothing by default.

        Args:
            progress: the share of the run's steps that are done, above 0 and at most 1.
        """


class ProjectedNetwork(nn.Module):
    """A backbone and its projector: images (B, 3, H, W) -> projections (B, out). See `Network`.

    Args:
        backbone: maps images to pooled features (B, in_features), such as a timm model with num_classes=0.
        projector: maps features to projections.
    """

    teacher_backbones: tuple[nn.Module, ...] = ()

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The projector."""
        return (self.projector,)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> projections (B, out)."""
        projections: Tensor = self.projector(self.backbone(images))
        return projections


def create_mlp(*widths: int) -> nn.Sequential:
    """Linear layers from one width to the next, BatchNorm1d and ReLU between them: (B, widths[0]) -> (B, widths[-1]).

    Layers before a BatchNorm have no bias.
    """
    layers: list[nn.Module] = []
    for width, following in pairwise(widths[:-1]):
        layers += [nn.Linear(width, following, bias=False), nn.BatchNorm1d(following), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def feature_width(backbone: nn.Module) -> int:
    """The number of features of an image that a timm model without a classifier returns.

    Raises:
        ValueError: the backbone has a classifier.
    """
    model: Any = backbone  # timm's attributes are not in nn.Module
    if model.num_classes:
        raise UserError(f"the backbone has a classifier for {model.num_classes} classes: create it with num_classes=0")
    return int(getattr(model, "head_hidden_size", model.num_features))  # some heads have a layer before the classifier


def outside_autocast(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs in float32, or in float64 where they are."""
    return [output.to(torch.promote_types(output.dtype, torch.float32)) for output in outputs]
