"""Rows of length 1, for cosine similarities."""

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (N, D), D at least 1, over their lengths, in float32 or float64, with gradient: right for all finite rows.

    To the bit that of `F.normalize` for rows of a length within 1e-10 to 1e10. Others are brought near 1 first:
    there they would become 0 where their squares overflow (from about 1e19 on in float32), and too short below the
    epsilon of 1e-12. A row of zeros has no direction: it stays, its cosine with all is 0, and so is its gradient. A
    row that is not finite has NaN in it. Nothing is branched on, so that a GPU need not be waited for.
    """
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    is_usual = (lengths > 1e-10) & (lengths < 1e10)
    largest = torch.linalg.vector_norm(rows.detach(), torch.inf, dim=1, keepdim=True)
    smallest_normal = torch.finfo(rows.dtype).tiny
    inverse = largest.clamp(smallest_normal, 1 / smallest_normal).reciprocal().where(largest != 0, 0)
    rows = rows * inverse.where(~is_usual, 1)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    divisors: Tensor = lengths.clamp_min(1e-12)
    return rows / divisors.expand_as(rows)
