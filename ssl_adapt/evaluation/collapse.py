"""Two measures of collapsed features, which need no labels."""

import torch
from torch import Tensor

from ssl_adapt.errors import UserError
from ssl_adapt.unit_rows import unit_rows


def feature_std(features: Tensor) -> float:
    """Standard deviation of the unit-length features (N, D) over the N rows, averaged over the D dimensions.

    0 when all features point the same way; at most 1 / sqrt(D), when they spread evenly in all directions.

    Raises:
        ValueError: If the features are not (N, D) with N and D at least 1, or not finite.

    Source: SimSiam (Chen & He 2021), section 4.1.
    """
    return unit_rows(_checked(features)).std(dim=0, correction=0).mean().item()


def rank_me(features: Tensor) -> float:
    """RankMe, the effective rank of the features (N, D): from 1 (collapsed) to min(N, D); 0 if all are zero.

    The exponential of the entropy of the singular values divided by their sum. Costs N * D^2 operations in
    float64, and a few rows for each dimension are enough: pass a subset of a large set.

    Raises:
        ValueError: If the features are not (N, D) with N and D at least 1, or not finite.

    Source: RankMe (Garrido et al. 2023), with its epsilon for float32, 1e-7. Features are neither
    centred nor normalised, as there.
    """
    singular_values = torch.linalg.svdvals(_checked(features))
    total = singular_values.sum()
    if total == 0:
        return 0.0
    shares = singular_values / total + 1e-7
    return float(torch.special.entr(shares).sum().exp())


def _checked(features: Tensor) -> Tensor:
    """The features in float64 on the CPU."""
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(f"features have shape {tuple(features.shape)}; pass (N, D) with N and D at least 1")
    if not features.isfinite().all():
        raise UserError("features are not finite; look for a diverged loss or a wrong normalisation of the images")
    return features.detach().to("cpu", torch.float64)
