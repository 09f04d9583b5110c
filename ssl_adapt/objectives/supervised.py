"""Supervised learning: cross-entropy with label smoothing, mixup and an auxiliary head."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from torch import Tensor, nn
from torch.distributions import Beta

from ssl_adapt.data import Batch
from ssl_adapt.errors import UserError
from ssl_adapt.objectives.base import Judge, MakeViews, Objective, outside_autocast


class ClassifierNetwork(nn.Module):
    """A backbone with its own classifier and no further heads. See `Network`."""

    heads: tuple[nn.Module, ...] = ()
    teacher_backbones: tuple[nn.Module, ...] = ()

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W) -> logits (B, classes), with an auxiliary head in training a pair."""
        return self.backbone(images)


class Supervised(Objective):
    """Cross-entropy of the backbone's classifier.

    Args:
        backbone: a timm model with a classifier of at least two classes.
        views: one view of an image.
        label_smoothing: share of each target that is spread evenly over all classes, in [0, 1).
        mixup_alpha: both parameters of the Beta distribution that the share of an image is drawn from; 0: no mixup.
        auxiliary_weight: of the auxiliary head's loss; 0.4 in DARTS. Without such a head it does nothing.

    Raises:
        ValueError: a value is outside its range; the message says which and what the range is.
    """

    judge: ClassVar[Judge] = "accuracy"
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        backbone: nn.Module,
        views: MakeViews,
        *,
        label_smoothing: float,
        mixup_alpha: float,
        auxiliary_weight: float,
    ) -> None:
        self.num_classes: int = backbone.num_classes  # type: ignore[assignment]
        rules = [
            ("num_classes", self.num_classes, "a whole number of at least 2", self.num_classes >= 2),
            ("label_smoothing", label_smoothing, "a number in [0, 1)", 0 <= label_smoothing < 1),
            ("mixup_alpha", mixup_alpha, "a finite number of at least 0", 0 <= mixup_alpha < math.inf),
            (
                "auxiliary_weight",
                auxiliary_weight,
                "a finite number of at least 0",
                0 <= auxiliary_weight < math.inf,
            ),
        ]
        for name, value, meaning, holds in rules:
            if not holds:
                raise UserError(f"{name} must be {meaning}, got {value!r}")
        self.network = ClassifierNetwork(backbone)
        self.make_views = views
        self.label_smoothing = label_smoothing
        self.mixup_alpha = mixup_alpha
        self.auxiliary_weight = auxiliary_weight

    def views(self, batch: Batch) -> list[Tensor]:
        """Images (B, 3, H, W) and their targets, see `mix`."""
        assert batch.labels is not None
        [images] = self.make_views(batch.images)
        return list(self.mix(images, batch.labels))

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and targets: as they came without mixup, else each mixed with its mirror.

        With mixup image i becomes lam * image i + (1 - lam) * image B - 1 - i, with one lam a batch; its target
        (B, num_classes) float32 likewise. The images given are left unchanged.

        lam comes from torch's CPU generator, where timm.data.Mixup takes numpy's: restoring torch's state then
        repeats it. Label smoothing is not in the targets, `loss` adds it.

        Args:
            images: (B, C, H, W) float, normalised.
            labels: (B,) int64 in 0..num_classes - 1.

        Raises:
            ValueError: the images are not floats, or the labels do not belong to them.

        Source: mixup (Zhang et al. 2018), eq. 1; the pairing by mirroring the batch is timm.data.Mixup's.
        """
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64 or not images.is_floating_point():
            raise UserError(
                f"got images {tuple(images.shape)} of {images.dtype} and labels {tuple(labels.shape)} of "
                f"{labels.dtype}; pass float images (B, C, H, W) and int64 labels (B,)"
            )
        if self.mixup_alpha == 0:
            return images, labels
        alpha = torch.tensor(self.mixup_alpha, dtype=torch.float64)
        lam = Beta(alpha, alpha).sample().item()
        targets: Tensor = mixup_target(labels, self.num_classes, lam)
        return images * lam + images.flip(0) * (1 - lam), targets

    def forward(self, network: nn.Module, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits (B, classes), those of an auxiliary head if there is one, and the targets."""
        images, targets = views
        logits = network(images)
        return (*(logits if isinstance(logits, tuple | list) else (logits,)), targets)

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """The mean cross-entropy, plus auxiliary_weight times the auxiliary head's.

        Args:
            outputs: logits (B, num_classes), perhaps auxiliary ones, and labels (B,) int64 or mixed targets
                (B, num_classes).

        Raises:
            ValueError: the logits have another shape.
        """
        *all_logits, targets = outputs
        logits, *auxiliary = (self._cross_entropy(logits, targets) for logits in all_logits)
        return logits + self.auxiliary_weight * sum(auxiliary) if auxiliary else logits

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        expected = (len(targets), self.num_classes)
        if logits.shape != expected:
            raise UserError(
                f"the network gives logits {tuple(logits.shape)} where {expected} belong; "
                f"create it with num_classes={self.num_classes}"
            )
        with torch.autocast(logits.device.type, enabled=False):
            [logits] = outside_autocast([logits])
            # Smoothing is linear in the targets: torch adds it to mixed ones just as to labels.
            targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
