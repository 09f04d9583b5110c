"""One backward pass over a batch in parts: equal to that over the whole, also where the loss compares images."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.objectives.base import Objective
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.training.recomputation import buffers_kept


def backward_in_parts(
    objective: Objective,
    network: nn.Module,
    views: Sequence[Tensor],
    parts: int,
    accelerator: Accelerator,
    *,
    recomputes: bool = False,
) -> Tensor:
    """The loss of this process's share of the batch, a scalar without gradient, after its backward pass.

    With several parts the outputs of all of them are computed first, without a graph; the loss of all outputs
    gives each part's gradient; and each part is then computed again and passes its own back. That is exact for
    losses that compare images, such as NT-Xent, and memory for one part's graph is enough. BatchNorm normalises
    part by part, as if each were a process with statistics of its own.

    Args:
        objective: what the network is trained for.
        network: the objective's network, or accelerate's wrapper of it.
        views: of this process's share of the batch.
        parts: how many; the share has at least as many images.
        accelerator: mixed precision, and when gradients go from process to process: with the last part.
        recomputes: whether the backward pass computes activations again.

    Source: GradCache (Gao et al. 2021), "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
    """
    if parts == 1:
        with accelerator.autocast():
            outputs = objective.forward(network, views)
        loss = objective.loss(outputs)
        with buffers_kept(objective.network) if recomputes else nullcontext():
            accelerator.backward(loss)
        return loss.detach()

    shares = list(zip(*(tensor.tensor_split(parts) for tensor in views), strict=True))
    states, cached = [], []
    with torch.no_grad(), statistics_at_rest(objective.network), accelerator.autocast():
        for share in shares:
            states.append(random_state())
            cached.append(objective.forward(objective.network, share))
    leaves = [torch.cat(tensors) for tensors in zip(*cached, strict=True)]
    for leaf in leaves:
        leaf.requires_grad_(leaf.is_floating_point())  # what proves to be no output of weights is left out below
    loss = objective.loss(leaves)
    loss.backward()
    lengths = [len(outputs[0]) for outputs in cached]
    gradients = [None if leaf.grad is None else leaf.grad.split(lengths) for leaf in leaves]

    for index, (share, state) in enumerate(zip(shares, states, strict=True)):
        set_random_state(state)  # the same paths are dropped as the first time
        is_last = index == parts - 1
        with nullcontext() if is_last else accelerator.no_sync(network):
            with accelerator.autocast():
                outputs = objective.forward(network, share)
            total = sum(
                (output * gradient[index]).sum()
                for output, gradient in zip(outputs, gradients, strict=True)
                if output.requires_grad and gradient is not None
            )
            with buffers_kept(objective.network) if recomputes else nullcontext():
                accelerator.backward(total)
    return loss.detach()
