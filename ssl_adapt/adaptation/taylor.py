"""Scores of changes from the weights that go and their gradients: all changes in one pass forward and back a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.removal import Change, Score, cuda_devices, mean_with_error
from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.errors import UserError
from ssl_adapt.processes import average


def taylor_scores(
    model: nn.Module,
    changes: Sequence[Change],
    backward: Callable[[Sequence[Tensor]], object],
    batches: Sequence[Sequence[Tensor]],
    *,
    network: nn.Module | None = None,
) -> list[Score]:
    """The squared Taylor score of each change, in the order of `changes`: sum((w g)^2) over the weights w that go.

    It estimates the square of what the loss would change by, so it is never below 0, and says nothing of changes that
    help. As for `removal_scores`, BatchNorm normalises with the batch and its running statistics rest, and torch's
    random state stays as it was. Gradients that were there before are gone.

    Args:
        model: the network whose edges change; plain, or adapted before.
        changes: what to measure; each takes weights away.
        backward: gives the weights the gradients g of a batch's loss, such as `lambda batch: loss(batch).backward()`.
        batches: what `backward` takes.
        network: what holds `model` and all else on the way to the loss; None if that is `model` alone.

    Raises:
        ValueError: if there are no batches, or a change takes no weights away.

    Distributed: every process calls it with the same changes and its own share of each batch; gradients are averaged.

    Source: Molchanov et al. 2019, eq. 8, with the mean over batches.
    """
    if not batches:
        raise UserError("batches is empty: a change is measured on one batch at least")
    for change in changes:
        if not takes_weights(model, change):
            raise UserError(
                f"{change} takes no weights away, of which the Taylor score is made: leave it out, or measure it by "
                "removal"
            )
    weights = [_weights(model, change) for change in changes]
    whole = network or model
    values: list[list[float]] = []
    with statistics_at_rest(whole), torch.random.fork_rng(devices=cuda_devices(model)):
        first_seed = torch.random.initial_seed() % 2**63
        for number, batch in enumerate(batches):
            whole.zero_grad()
            torch.manual_seed(first_seed + number)
            backward(batch)
            once = dict.fromkeys(weight for going in weights for weight in going)  # in the same order everywhere
            average([weight.grad for weight in once if weight.grad is not None])
            values.append([_sum_of_squares(going) for going in weights])
        whole.zero_grad()
    of_changes = zip(*values, strict=True)
    return [
        Score(change, *mean_with_error(found), len(found)) for change, found in zip(changes, of_changes, strict=True)
    ]


def takes_weights(model: nn.Module, change: Change) -> bool:
    """Whether weights go with a change: not so where there were none, as at none edges and skips."""
    return bool(_weights(model, change))


def _weights(model: nn.Module, change: Change) -> list[nn.Parameter]:
    return [weight for name in change.edges for weight in model.get_submodule(name).parameters()]


@torch.no_grad()
def _sum_of_squares(weights: Sequence[nn.Parameter]) -> float:
    products = [(weight * weight.grad).double().square().sum() for weight in weights if weight.grad is not None]
    return float(torch.stack(products).sum()) if products else 0.0
