"""BYOL: from one view a network predicts the projection of the other view by its moving average, the teacher."""

import math
from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.objectives.base import (
    MakeViews,
    Objective,
    ProjectedNetwork,
    create_mlp,
    feature_width,
    outside_autocast,
)


class ByolNetwork(ProjectedNetwork):
    """Backbone, projector and predictor, and a teacher, the moving average of the first two: images -> predictions."""

    def __init__(self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__(backbone, projector)
        self.predictor = predictor
        self.teacher = ProjectedNetwork(deepcopy(backbone), deepcopy(projector)).requires_grad_(False)

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The projector and the predictor."""
        return self.projector, self.predictor

    @property
    def teacher_backbones(self) -> tuple[nn.Module, ...]:  # type: ignore[override]
        """The teacher's backbone."""
        return (self.teacher.backbone,)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> predictions (B, out)."""
        predictions: Tensor = self.predictor(super().forward(images))
        return predictions


class Byol(Objective):
    """Maximises the cosine between the prediction of each view and the teacher's projection of the other.

    Args:
        backbone: a timm model without a classifier.
        views: two views of an image.
        projector_hidden: width of the projector's hidden layer.
        projector_out: width of projection and prediction.
        predictor_hidden: width of the predictor's hidden layer.
        momentum: share of itself that the teacher keeps at the first step; it rises to 1 by a cosine.

    Source: BYOL (Grill et al. 2020), eq. 2 and appendix A. As there BatchNorm of the teacher normalises with the batch.
    """

    def __init__(
        self,
        backbone: nn.Module,
        views: MakeViews,
        *,
        projector_hidden: int,
        projector_out: int,
        predictor_hidden: int,
        momentum: float,
    ) -> None:
        projector = create_mlp(feature_width(backbone), projector_hidden, projector_out)
        self.network = ByolNetwork(backbone, projector, create_mlp(projector_out, predictor_hidden, projector_out))
        self.make_views = views
        self.momentum = momentum

    def forward(self, network: nn.Module, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The predictions (B, out) of both views, and the teacher's projections of both, without gradient."""
        predictions = [network(view) for view in views]
        with torch.no_grad():
            projections = [self.network.teacher(view) for view in views]
        return (*predictions, *projections)

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """The mean over images of the squared distances between unit vectors, 2 - 2 cos, over both directions."""
        prediction_a, prediction_b, target_a, target_b = outside_autocast(outputs)
        cosine_a = F.cosine_similarity(prediction_a, target_b, dim=1)
        cosine_b = F.cosine_similarity(prediction_b, target_a, dim=1)
        return (4 - 2 * cosine_a - 2 * cosine_b).mean()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the teacher towards the network."""
        share = (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        network, teacher = self.network, self.network.teacher
        for mine, theirs in ((teacher.backbone, network.backbone), (teacher.projector, network.projector)):
            move_towards(mine.parameters(), theirs.parameters(), share)


def move_towards(values: Iterable[Tensor], others: Iterable[Tensor], share: float) -> None:
    """Move tensors, in place, by `share` of the way to others of the same shapes."""
    mine, theirs = list(values), [other.detach() for other in others]
    assert [value.shape for value in mine] == [other.shape for other in theirs]
    torch._foreach_lerp_(mine, theirs, share)
