"""The NT-Xent loss, in blocks of similarities: its memory grows with the batch, not with the square of the batch."""

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_adapt.errors import UserError
from ssl_adapt.processes import gather_rows, process_count, process_index, row_counts
from ssl_adapt.unit_rows import unit_rows

BLOCK_ROWS = 512  # the fastest of 128 to 2048 on one core, within noise, from 512 images up


def nt_xent(proj_a: Tensor, proj_b: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent loss, a scalar: the mean over the 2B projections of -log p(the other view of the same image).

    For row i with positive j the softmax runs over the 2B - 1 other rows of both views. It is computed as
    ``log(1 + Zneg / Epos)`` with the negatives summed separately from the positive. The gradient of the positive
    is then ``Zneg / (Zneg + Epos)`` and never ``1 - p``, which in float32 has no correct digit left once
    p is within 1e-7 of 1: close pairs at a small temperature.

    The similarities exist one block at a time, and the backward pass computes them again, so that memory
    grows linearly with the batch. A second derivative exists only where one block holds them all, which is up
    to 256 images in one process; elsewhere asking for it is an error.

    Args:
        proj_a: (B, D) projections of the first views, of any finite size (normalised to unit length in this
            function). One of zeros has cosine 0 with all, and gets no gradient.
        proj_b: (B, D) projections of the second views; row i belongs to row i of ``proj_a``.
        temperature: positive divisor of the cosine similarities; 0.5 in SimCLR on CIFAR-10.

    Returns:
        Scalar in float32, or in float64 for float64 projections. Half precision is
        converted to float32 and autocast turned off: three digits are too few for the division by the temperature.

    Raises:
        ValueError: If the shapes differ or are not (B, D), B < 2, or the temperature is not positive.

    Distributed: collective, negatives come from all processes; B may differ between them, and B < 2 counts the
    pairs of all. Each returns the sum of its own rows' losses, times the number of processes, over the number of
    all rows. So the mean over the processes of what they return is the loss of the whole batch, and the mean of
    their parameters' gradients, which is what DDP computes, is its gradient. Gradients are passed between the
    processes: all of them call backward, or none.

    Source: SimCLR (Chen et al. 2020), eq. 1.
    """
    if proj_a.shape != proj_b.shape or proj_a.ndim != 2:
        raise UserError(
            f"projections have shapes {tuple(proj_a.shape)} and {tuple(proj_b.shape)}; "
            "pass two of the same shape (B, D)"
        )
    if not temperature > 0:
        raise UserError(f"temperature must be positive, got {temperature}; SimCLR uses 0.5 on CIFAR-10")
    return nt_xent_by_blocks(proj_a, proj_b, temperature, BLOCK_ROWS)


def nt_xent_by_blocks(proj_a: Tensor, proj_b: Tensor, temperature: float, block_rows: int) -> Tensor:
    """`nt_xent` of checked projections, with at most (block_rows, block_rows) similarities at a time."""
    counts = row_counts(len(proj_a))
    pairs, start, everyone = len(proj_a), sum(counts[: process_index()]), sum(counts)
    if everyone < 2:
        raise UserError(f"NT-Xent got {everyone} pair(s) and so no negatives; pass a batch of at least 2 images")

    with torch.autocast(proj_a.device.type, enabled=False):
        rows = unit_rows(torch.cat([proj_a, proj_b])) * temperature**-0.5
        view_a, view_b = rows.chunk(2)
        positives = (view_a * view_b).sum(dim=1)
        if process_count() == 1 and len(rows) <= block_rows:
            return _dense_loss(rows, positives.repeat(2))
        if process_count() == 1:
            loss = _LossOfAnchors.apply(rows, None, positives.repeat(2), (-pairs, 0, pairs), block_rows)
            return cast(Tensor, loss / (2 * pairs))

        # In the order of one process with the whole batch: all first views, then all second ones.
        gathered = gather_rows(torch.stack([view_a, view_b], dim=1)).transpose(0, 1).flatten(0, 1)
        own_columns = (start, start + everyone)  # those of row 0, in both views; then one further each row
        loss_a, loss_b = (
            _LossOfAnchors.apply(view, gathered, positives, own_columns, block_rows) for view in (view_a, view_b)
        )
        return cast(Tensor, (loss_a + loss_b) * (process_count() / (2 * everyone)))


def _dense_loss(rows: Tensor, positives: Tensor) -> Tensor:
    """The mean of log(1 + Zneg / Epos), recorded by autograd: for the few rows of one block the fastest form."""
    similarities = rows @ rows.T
    with torch.no_grad():  # unrecorded: the gradient of exp(-inf) is 0 without it
        for offset in (-len(rows) // 2, 0, len(rows) // 2):
            similarities.diagonal(offset).fill_(-torch.inf)
        largest = similarities.amax(dim=1, keepdim=True)
    negatives = similarities.sub_(largest).exp_().sum(dim=1).log() + largest.squeeze(1)
    return -F.logsigmoid(positives - negatives).mean()


class _LossOfAnchors(torch.autograd.Function):
    """The sum over the anchors of log(1 + Zneg / Epos).

    Takes the anchors (N, D), the rows (M, D) that hold their negatives, or None where these are the anchors
    themselves, the similarities (N,) of the positives, the diagonals of (N, M) that are no negatives, and the
    number of rows of a block. The similarities of anchors among themselves are symmetric: a block above the
    diagonal then also serves its columns, and none below is visited.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        others: Tensor | None,
        positives: Tensor,
        left_out: tuple[int, ...],
        block_rows: int,
    ) -> Tensor:
        largest = anchors.new_full((len(anchors),), torch.finfo(anchors.dtype).min)
        total = torch.zeros_like(largest)
        for rows, columns, similarities, scratch in _blocks(anchors, others, left_out, block_rows):
            _add_exps(similarities, 1, largest[rows], total[rows], scratch)
            if others is None and rows != columns:
                _add_exps(similarities, 0, largest[columns], total[columns], scratch)
        negatives = total.log_().add_(largest)
        ctx.save_for_backward(anchors, others, positives, negatives)
        ctx.left_out, ctx.block_rows = left_out, block_rows
        return -F.logsigmoid(positives - negatives).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # torch's once_differentiable is silent, and the second derivative wrong, where `gradient` is a constant.
        if torch.is_grad_enabled():
            raise UserError("create_graph=True: NT-Xent has no second derivative at this size; leave it out")
        anchors, others, positives, negatives = ctx.saved_tensors
        across = anchors if others is None else others
        anchors_gradient = torch.zeros_like(anchors)
        across_gradient = anchors_gradient if others is None else torch.zeros_like(others)

        # A negative's weight is exp(similarity) / (Zneg + Epos), one exp with the logarithm of the divisor.
        divisor = torch.logaddexp(negatives, positives)
        with torch.autocast(anchors.device.type, enabled=False):
            for rows, columns, similarities, scratch in _blocks(anchors, others, ctx.left_out, ctx.block_rows):
                is_mirrored = others is None and rows != columns
                if is_mirrored:
                    torch.sub(similarities, divisor[columns], out=scratch).exp_()
                weights = similarities.sub_(divisor[rows, None]).exp_()
                if is_mirrored:
                    weights += scratch
                anchors_gradient[rows].addmm_(weights, across[columns])
                across_gradient[columns].addmm_(weights.T, anchors[rows])
        others_gradient = None if others is None else across_gradient.mul_(gradient)
        positives_gradient = torch.sigmoid(negatives - positives).mul_(-gradient)
        return anchors_gradient.mul_(gradient), others_gradient, positives_gradient, None, None


def _blocks(
    anchors: Tensor, others: Tensor | None, left_out: tuple[int, ...], block_rows: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows, columns, their similarities with -inf on the diagonals left out, and as much room; both are reused."""
    across = anchors if others is None else others
    buffer = anchors.new_empty(2, min(block_rows, len(anchors)) * min(block_rows, len(across)))
    for top in range(0, len(anchors), block_rows):
        rows = slice(top, min(top + block_rows, len(anchors)))
        for left in range(top if others is None else 0, len(across), block_rows):
            columns = slice(left, min(left + block_rows, len(across)))
            height, width = rows.stop - top, columns.stop - left
            similarities, scratch = buffer[:, : height * width].view(2, height, width)
            torch.mm(anchors[rows], across[columns].T, out=similarities)
            for diagonal in left_out:
                offset = diagonal + top - left
                if -height < offset < width:
                    similarities.diagonal(offset).fill_(-torch.inf)
            yield rows, columns, similarities, scratch


def _add_exps(similarities: Tensor, dim: int, largest: Tensor, total: Tensor, scratch: Tensor) -> None:
    """Sum exp(similarity - largest) over a dimension into `total`, after `largest` has grown to what is seen."""
    grown = torch.maximum(largest, similarities.amax(dim))
    exps = torch.sub(similarities, grown.unsqueeze(dim), out=scratch).exp_()
    total.mul_(largest.sub_(grown).exp_()).add_(exps.sum(dim))
    largest.copy_(grown)
