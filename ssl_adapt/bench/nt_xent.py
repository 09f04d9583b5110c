"""Comparison of NT-Xent, forward and backward: ours, lightly's, and the plain logsumexp form."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_adapt.bench.timing import Comparison, DisagreementError
from ssl_adapt.objectives.simclr import nt_xent

TEMPERATURE = 0.5
TOLERANCE = 1e-4  # relative; float32 rounding over the largest batch is far below

Loss = Callable[[Tensor, Tensor], Tensor]


def compare_nt_xent(batch_size: int, *, device: torch.device, dim: int = 128) -> Comparison:
    """The loss of a batch of pairs and its gradient to both projections."""
    proj_a = torch.randn(batch_size, dim, device=device, requires_grad=True)
    proj_b = torch.randn(batch_size, dim, device=device, requires_grad=True)
    losses: dict[str, Loss] = {
        "ours": lambda a, b: nt_xent(a, b, temperature=TEMPERATURE),
        "plain logsumexp": plain_nt_xent,
    }
    notes: tuple[str, ...] = ()
    lightly_nt_xent = find_lightly_nt_xent()
    if lightly_nt_xent is None:
        notes = ("lightly's NTXentLoss is left out, as lightly is not installed: pip install lightly",)
    else:
        losses["lightly's NTXentLoss"] = lightly_nt_xent

    def forward_backward(loss: Loss) -> Callable[[], float]:
        def call() -> float:
            value = loss(proj_a, proj_b)
            torch.autograd.grad(value, (proj_a, proj_b))
            return value.item()

        return call

    return Comparison(
        name=f"nt_xent: batch {batch_size}, {dim}-d, forward and backward",
        shows="how the form that keeps gradients exact at small temperatures compares in time",
        contenders={name: forward_backward(loss) for name, loss in losses.items()},
        unit="pairs",
        units_per_call=batch_size,
        notes=notes,
        check=check_losses,
    )


def plain_nt_xent(proj_a: Tensor, proj_b: Tensor) -> Tensor:
    """NT-Xent, a scalar, as logsumexp over a row without its diagonal, minus the positive."""
    rows = F.normalize(torch.cat([proj_a, proj_b]), dim=1)
    similarities = rows @ rows.T / TEMPERATURE
    positives = torch.cat([similarities.diagonal(len(proj_a)), similarities.diagonal(-len(proj_a))])
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return (similarities.masked_fill(itself, -torch.inf).logsumexp(dim=1) - positives).mean()


def find_lightly_nt_xent() -> Loss | None:
    """lightly's loss at the same temperature, or None where lightly is not installed."""
    try:
        from lightly.loss import NTXentLoss  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        return None
    loss: Loss = NTXentLoss(temperature=TEMPERATURE)
    return loss


def check_losses(values: Mapping[str, float]) -> None:
    """Raises DisagreementError unless all losses are equal up to rounding."""
    expected = values["ours"]
    if not all(math.isclose(value, expected, rel_tol=TOLERANCE) for value in values.values()):
        raise DisagreementError(f"the NT-Xent losses differ: {dict(values)}")
