"""An objective of one's own, Barlow Twins: python examples/own_objective.py

In the package it would be a file of `ssl_adapt/objectives/`, a section of `ssl_adapt/recipe/objective_sections.py`, a
line of `OBJECTIVES` in `ssl_adapt/training/objective.py`, a recipe, and a row of
`tests/conformance/test_objectives.py`.
"""

from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn

from ssl_adapt.data import Batch, load_image_splits
from ssl_adapt.objectives.base import Objective, ProjectedNetwork, create_mlp, feature_width, outside_autocast
from ssl_adapt.processes import gather_rows
from ssl_adapt.views import ResizedCropSettings, Views, resized_crop_view


class BarlowTwins(Objective):
    """The correlation of each output with itself, over two views, is 1, and with all others 0.

    Source: Barlow Twins (Zbontar et al. 2021), eq. 1 and 2.
    """

    def __init__(self, backbone: nn.Module, views: Views, *, projector_hidden: int, projector_out: int, weight: float):
        projector = create_mlp(feature_width(backbone), projector_hidden, projector_out)
        self.network = ProjectedNetwork(backbone, projector)
        self.make_views = views
        self.weight = weight

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """Squared distances of the correlations (out, out) from the identity matrix, off the diagonal by `weight`."""
        rows = [gather_rows(output) for output in outside_autocast(outputs)]
        view_a, view_b = ((row - row.mean(0)) / row.std(0, correction=0).clamp_min(1e-5) for row in rows)
        correlation = view_a.T @ view_b / len(view_a)
        squares = (correlation - torch.eye(len(correlation), device=correlation.device)).square()
        return squares.diagonal().sum() + self.weight * (squares.sum() - squares.diagonal().sum())


def main() -> None:
    """Ten steps on the handwritten digits."""
    torch.manual_seed(0)
    images = load_image_splits("digits", image_px=16).train.images(torch.arange(256))
    settings = ResizedCropSettings(
        size_px=16, crop_scale=(0.4, 1.0), crop_ratio=(0.75, 1.33), antialias=True, flip_p=0.0,
        jitter=(0.2, 0.2, 0.2, 0.05), jitter_p=0.8, grayscale_p=0.0, mean=(0.3, 0.3, 0.3), std=(0.3, 0.3, 0.3),
    )  # fmt: skip
    backbone = timm.create_model("resnet20", num_classes=0, width=8)
    views = Views([resized_crop_view(settings)] * 2)
    objective = BarlowTwins(backbone, views, projector_hidden=64, projector_out=32, weight=5e-3)
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=2e-3)
    for step in range(10):
        loss = objective.loss(objective.forward(objective.network, objective.views(Batch(images))))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss.item():.2f}")


if __name__ == "__main__":
    main()
