"""The SimCLR objective: the projector and the NT-Xent loss, as pure code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def create_projector(in_features: int, hidden: int, out: int) -> nn.Sequential:
    """Projection head: Linear (no bias), BatchNorm1d, ReLU, Linear; (B, in_features) -> (B, out).

    Source: SimCLR (Chen et al. 2020), section 2.1; the sizes 2048-512-128 and the BatchNorm are those of
    the public leftthomas/SimCLR.
    """
    return nn.Sequential(
        nn.Linear(in_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out),
    )


def nt_xent(proj_a: Tensor, proj_b: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent loss, a scalar: the mean over the 2B projections of -log p(the other view of the same image).

    For row i with positive j the softmax runs over the 2B - 1 other rows of both views. It is computed as
    ``log(1 + Zneg / Epos)`` with the negatives summed apart from the positive. The gradient of the positive
    is then ``Zneg / (Zneg + Epos)`` and never ``1 - p``, which in float32 has no correct digit left once
    p is within 1e-7 of 1: close pairs at a small temperature.

    Args:
        proj_a: (B, D) projections of the first views, any scale (normalised to unit length in here).
        proj_b: (B, D) projections of the second views; row i belongs to row i of ``proj_a``.
        temperature: positive divisor of the cosine similarities; 0.5 in SimCLR on CIFAR-10.

    Returns:
        Scalar in float32, or in float64 for float64 projections. Half precision and autocast are left at
        the entrance: their three digits do not survive the division by the temperature.

    Raises:
        ValueError: If the shapes differ or are not (B, D), B < 2, or the temperature is not positive.

    Distributed: not collective yet; negatives come from this process alone.

    Source: SimCLR (Chen et al. 2020), eq. 1.
    """
    if proj_a.shape != proj_b.shape or proj_a.ndim != 2:
        raise ValueError(
            f"projections have shapes {tuple(proj_a.shape)} and {tuple(proj_b.shape)}; "
            "pass two of the same shape (B, D)"
        )
    pairs = len(proj_a)
    if pairs < 2:
        raise ValueError(f"NT-Xent got {pairs} pair(s) and so no negatives; pass a batch of at least 2 images")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}; SimCLR uses 0.5 on CIFAR-10")

    with torch.autocast(proj_a.device.type, enabled=False):
        projections = torch.cat([proj_a, proj_b])
        projections = projections.to(torch.promote_types(projections.dtype, torch.float32))
        rows = F.normalize(projections, dim=1) * temperature**-0.5
        positives = (rows[:pairs] * rows[pairs:]).sum(dim=1).repeat(2)
        similarities = rows @ rows.T
        with torch.no_grad():  # unrecorded: the gradient of exp(-inf) is 0 without it
            for offset in (-pairs, 0, pairs):
                similarities.diagonal(offset).fill_(-torch.inf)
            largest = similarities.amax(dim=1, keepdim=True)
        # logsumexp by hand and in place: at most two (2B, 2B) matrices at a time, where torch's needs four
        negatives = similarities.sub_(largest).exp_().sum(dim=1).log() + largest.squeeze(1)
        return -F.logsigmoid(positives - negatives).mean()


class SimclrNetwork(nn.Module):
    """A backbone and its projector: images (B, 3, H, W) -> projections (B, out).

    Args:
        backbone: maps images to pooled features (B, in_features), such as a timm model with num_classes=0.
        projector: maps features to projections.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.heads = (projector,)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> projections (B, out)."""
        projections: Tensor = self.projector(self.backbone(images))
        return projections
