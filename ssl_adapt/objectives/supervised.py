"""The supervised objective: cross-entropy, with label smoothing, mixup and an auxiliary head as options."""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from torch import Tensor


@dataclass(frozen=True)
class SupervisedObjective:
    """Cross-entropy of logits against labels or mixed targets.

    Args:
        num_classes: of the labels.
        label_smoothing: share of the target that is spread over all classes, 0 <= . < 1.
        mixup_alpha: Beta(alpha, alpha) draws how a batch is mixed with itself in reverse order; 0 is no mixup.
        auxiliary_weight: weight of an auxiliary head's loss; 0.4 in DARTS.

    Raises:
        ValueError: if an argument is out of its range.

    Source: Zhang et al. 2018 for mixup; targets by timm; Liu et al. 2019 for the auxiliary loss.
    """

    num_classes: int
    label_smoothing: float = 0.0
    mixup_alpha: float = 0.0
    auxiliary_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes}: a classifier needs at least 2 classes")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be from 0 to below 1")
        if self.mixup_alpha < 0 or self.auxiliary_weight < 0:
            raise ValueError("mixup_alpha and auxiliary_weight must not be negative")

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) -> the same, or mixed images and targets (B, num_classes).

        The one draw for a batch comes from torch's CPU generator, so that restoring its state repeats it.
        """
        if self.mixup_alpha == 0:
            return images, labels
        alpha = torch.tensor(self.mixup_alpha, dtype=torch.float64)
        share = torch.distributions.Beta(alpha, alpha).sample().item()
        mixed = torch.lerp(images.flip(0), images, share)
        return mixed, cast(Tensor, mixup_target(labels, self.num_classes, share, self.label_smoothing))

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """A scalar in float32 (float64 for float64 logits).

        Args:
            outputs: logits (B, num_classes), or the pair with those of an auxiliary head.
            targets: labels int64 (B,), or shares (B, num_classes), which carry the smoothing themselves.
        """
        if isinstance(outputs, tuple):
            logits, auxiliary_logits = outputs
            return self.loss(logits, targets) + self.auxiliary_weight * self.loss(auxiliary_logits, targets)
        smoothing = self.label_smoothing if targets.ndim == 1 else 0.0
        with torch.autocast(outputs.device.type, enabled=False):
            logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
            return F.cross_entropy(logits, targets.to(logits.device), label_smoothing=smoothing)
