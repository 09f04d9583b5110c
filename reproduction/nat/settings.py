"""The settings of NAT's search, and the published values."""

from dataclasses import dataclass
from typing import Literal, get_args

from ssl_adapt.errors import UserError

Baseline = Literal["released", "moving_average"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The settings of NAT's search; images and loss are in the recipe.

    Attributes:
        epochs: each a pass of the weights, then one of the controller.
        batch_size: images in a batch, of both passes.
        channels: width C of the supernet.
        cells: of the supernet.
        transforms: drawn at the end, of which the best is kept.
        weight_share: share of the training images for the weights; the controller has the others.
        weight_lr: of SGD.
        weight_momentum: of SGD.
        weight_decay: of SGD.
        controller_lr: of Adam.
        controller_betas: of Adam.
        controller_decay: weight decay of Adam.
        entropy_weight: of the entropy, which is subtracted from the controller's loss.
        baseline: "released": b <- 0.99 b + 0.01 (r - b), which settles at half the mean reward, as in the released
            code; "moving_average": b <- 0.99 b + 0.01 r. It starts at 0.
        self_loops: whether the controller's graph has an edge from each node to itself.

    Raises:
        ValueError: a value is outside its range; the message says which and what the range is.
    """

    epochs: int
    batch_size: int
    channels: int
    cells: int
    transforms: int
    weight_share: float
    weight_lr: float
    weight_momentum: float
    weight_decay: float
    controller_lr: float
    controller_betas: tuple[float, float]
    controller_decay: float
    entropy_weight: float
    baseline: Baseline
    self_loops: bool

    def __post_init__(self) -> None:
        rules = [
            *((name, "at least 1", getattr(self, name) >= 1) for name in ("epochs", "channels", "cells", "transforms")),
            ("batch_size", "at least 2", self.batch_size >= 2),
            ("weight_share", "a share above 0 and below 1", 0 < self.weight_share < 1),
            ("baseline", " or ".join(get_args(Baseline)), self.baseline in get_args(Baseline)),
        ]
        for name, meaning, holds in rules:
            if not holds:
                raise UserError(f"{name} must be {meaning}, got {getattr(self, name)!r}")


# Source: Guo et al. 2019 and https://github.com/guoyongcs/NAT.
PUBLISHED = SearchSettings(
    epochs=100,
    batch_size=64,
    channels=20,
    cells=8,
    transforms=10,
    weight_share=0.4,
    weight_lr=0.01,
    weight_momentum=0.9,
    weight_decay=3e-4,
    controller_lr=3e-4,
    controller_betas=(0.5, 0.999),
    controller_decay=5e-4,
    entropy_weight=3e-3,
    baseline="released",
    self_loops=False,
)
