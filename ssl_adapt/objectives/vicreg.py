"""VICReg: the two views of an image agree, while every output varies over images and no two outputs vary together."""

from collections.abc import Sequence

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
from ssl_adapt.processes import gather_rows

EPSILON = 1e-4  # under the root of a variance, as in the paper


class Vicreg(Objective):
    """The weighted sum of VICReg's three terms.

    Args:
        backbone: a timm model without a classifier.
        views: two views of an image.
        projector_hidden: width of the projector's two hidden layers.
        projector_out: width of the projection.
        invariance_weight: of the mean squared difference between the views; 25 in the paper.
        variance_weight: of what the standard deviations lack to 1; 25 in the paper.
        covariance_weight: of the squared covariances; 1 in the paper.

    Source: VICReg (Bardes et al. 2022), eq. 1 to 6; the projector is their expander of three layers.
    """

    def __init__(
        self,
        backbone: nn.Module,
        views: MakeViews,
        *,
        projector_hidden: int,
        projector_out: int,
        invariance_weight: float,
        variance_weight: float,
        covariance_weight: float,
    ) -> None:
        projector = create_mlp(feature_width(backbone), projector_hidden, projector_hidden, projector_out)
        self.network = ProjectedNetwork(backbone, projector)
        self.make_views = views
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """The weighted sum of the three terms; variance is the mean, covariance the sum of both views' terms.

        Distributed: collective; all processes compute the loss of all rows, so that all call backward, or none.
        """
        with torch.autocast(outputs[0].device.type, enabled=False):
            view_a, view_b = (gather_rows(output) for output in outside_autocast(outputs))
            return (
                self.invariance_weight * F.mse_loss(view_a, view_b)
                + self.variance_weight * (_missing_deviation(view_a) + _missing_deviation(view_b)) / 2
                + self.covariance_weight * (_squared_covariance(view_a) + _squared_covariance(view_b))
            )


def _missing_deviation(rows: Tensor) -> Tensor:
    """What the standard deviations of the columns lack to 1, on average."""
    return (1 - (rows.var(dim=0) + EPSILON).sqrt()).relu().mean()


def _squared_covariance(rows: Tensor) -> Tensor:
    """The sum of the squared covariances between different columns of (N, D) rows, over D."""
    centred = rows - rows.mean(dim=0)
    covariance = centred.T @ centred / (len(rows) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / rows.shape[1]
