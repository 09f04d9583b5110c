"""The supervised objective: cross entropy with label smoothing, mixup and an auxiliary head, as pure code."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from torch import Tensor
from torch.distributions import Beta


@dataclass(frozen=True)
class SupervisedObjective:
    """Mixes a batch once, and turns logits and targets into a loss.

    Args:
        num_classes: logits of an image, at least 2.
        label_smoothing: share of each target that is spread evenly over all classes, in [0, 1).
        mixup_alpha: both parameters of the Beta distribution that the share of an image is drawn from; 0: no mixup.
        auxiliary_weight: of the auxiliary head's loss; 0.4 in DARTS. Without such a head it does nothing.

    Raises:
        ValueError: a value is outside its range; the message says which and what the range is.
    """

    num_classes: int
    label_smoothing: float
    mixup_alpha: float
    auxiliary_weight: float

    def __post_init__(self) -> None:
        rules = [
            ("num_classes", "a whole number of at least 2", self.num_classes >= 2),
            ("label_smoothing", "a number in [0, 1)", 0 <= self.label_smoothing < 1),
            ("mixup_alpha", "a finite number of at least 0", 0 <= self.mixup_alpha < float("inf")),
            ("auxiliary_weight", "a finite number of at least 0", 0 <= self.auxiliary_weight < float("inf")),
        ]
        for name, meaning, holds in rules:
            if not holds:
                raise ValueError(f"{name} must be {meaning}, got {getattr(self, name)!r}")

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images (B, C, H, W) and targets: as they came without mixup, else each mixed with its mirror.

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
            raise ValueError(
                f"got images {tuple(images.shape)} of {images.dtype} and labels {tuple(labels.shape)} of "
                f"{labels.dtype}; pass float images (B, C, H, W) and int64 labels (B,)"
            )
        if self.mixup_alpha == 0:
            return images, labels
        alpha = torch.tensor(self.mixup_alpha, dtype=torch.float64)
        lam = Beta(alpha, alpha).sample().item()
        targets: Tensor = mixup_target(labels, self.num_classes, lam)
        return images * lam + images.flip(0) * (1 - lam), targets

    def loss(self, outputs: Tensor | tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """Returns the mean cross entropy, a scalar in float32 (float64 for such logits), outside autocast.

        Args:
            outputs: logits (B, num_classes), or the pair (logits, auxiliary logits): the loss is then the
                logits' plus auxiliary_weight times the auxiliary ones'.
            targets: from `mix`: labels (B,) int64 or mixed targets (B, num_classes).

        Raises:
            ValueError: the logits have another shape.
        """
        logits, *auxiliary = outputs if isinstance(outputs, tuple | list) else (outputs,)
        loss = self._cross_entropy(logits, targets)
        for auxiliary_logits in auxiliary:
            loss = loss + self.auxiliary_weight * self._cross_entropy(auxiliary_logits, targets)
        return loss

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        expected = (len(targets), self.num_classes)
        if logits.shape != expected:
            raise ValueError(
                f"the network gives logits {tuple(logits.shape)} where {expected} belong; "
                f"create it with num_classes={self.num_classes}"
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            # Smoothing is linear in the targets: torch adds it to mixed ones just as to labels.
            targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
