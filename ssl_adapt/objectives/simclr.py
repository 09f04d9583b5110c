"""SimCLR: the two views of an image attract each other, and all other images repel."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_adapt.objectives.base import MakeViews, Objective, ProjectedNetwork, create_mlp, feature_width
from ssl_adapt.objectives.nt_xent import nt_xent

ViewForward = Literal["separate", "joint"]


class Simclr(Objective):
    """NT-Xent on two views of every image.

    Args:
        backbone: a timm model without a classifier.
        views: two views of an image.
        temperature: divides the cosines; 0.5 on CIFAR-10.
        projector_hidden: width of the projector's hidden layer.
        projector_out: width of the projection.
        view_forward: "separate" takes the views one after the other, so that BatchNorm sees them apart, as the public
            reference does; "joint" takes both in one pass.

    Source: SimCLR (Chen et al. 2020); sizes and BatchNorm of the projector as in github.com/leftthomas/SimCLR.
    """

    def __init__(
        self,
        backbone: nn.Module,
        views: MakeViews,
        *,
        temperature: float,
        projector_hidden: int,
        projector_out: int,
        view_forward: ViewForward = "separate",
    ) -> None:
        projector = create_mlp(feature_width(backbone), projector_hidden, projector_out)
        self.network = ProjectedNetwork(backbone, projector)
        self.make_views = views
        self.temperature = temperature
        self.view_forward = view_forward

    def forward(self, network: nn.Module, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The projections (B, out) of both views."""
        if self.view_forward == "joint":
            return tuple(network(torch.cat(list(views))).chunk(2))
        return super().forward(network, views)

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """NT-Xent, see `nt_xent`."""
        return nt_xent(*outputs, temperature=self.temperature)
