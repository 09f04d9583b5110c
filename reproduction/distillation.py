"""Training on labels with a frozen teacher beside them."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.objectives import Objective

TEMPERATURE, TEACHER_SHARE = 2.0, 0.5


class Distilled(Objective):
    """A supervised objective whose loss is half cross-entropy, half the divergence from a teacher's softened outputs.

    Args:
        objective: supervised, without an auxiliary head; its network is the student.
        teacher: a network of the same classes; it is used in eval mode and not trained.

    Source: Hinton, Vinyals and Dean 2015, section 2, the second term times the temperature squared.
    """

    def __init__(self, objective: Objective, teacher: nn.Module) -> None:
        self.network, self.make_views = objective.network, objective.make_views
        self.objective, self.teacher = copy(objective), teacher.eval().requires_grad_(False)

    def views(self, batch: Any) -> list[Tensor]:
        """Those of the supervised objective."""
        return self.objective.views(batch)

    def forward(self, network: nn.Module, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits (B, classes), targets, and the teacher's logits."""
        with torch.no_grad():
            taught = self.teacher(views[0])
        return (*self.objective.forward(network, views), taught)

    def after_step(self, progress: float) -> None:
        """What the supervised objective does then."""
        self.objective.after_step(progress)

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """A scalar."""
        logits, targets, taught = outputs
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, 1), F.log_softmax(taught / TEMPERATURE, 1), log_target=True,
            reduction="batchmean",
        )  # fmt: skip
        labels = self.objective.loss((logits, targets))
        return (1 - TEACHER_SHARE) * labels + TEACHER_SHARE * TEMPERATURE**2 * soft
