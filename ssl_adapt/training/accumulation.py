"""One backward pass over a batch in parts: equal to that over the whole, also where the loss compares images."""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.processes import process_count, sum_all
from ssl_adapt.training.checkpoint import random_state, set_random_state
from ssl_adapt.training.tasks import Inputs, Task


def backward_in_parts(
    task: Task, network: nn.Module, plain: nn.Module, inputs: Inputs, parts: int, accelerator: Accelerator
) -> float:
    """The loss of the whole batch, the mean over all processes, after its backward pass.

    With several parts the outputs of all of them are computed first, without a graph; the loss of all outputs
    gives each part's gradient; and each part is then computed again and passes its own back. That is exact for
    losses that compare images, such as NT-Xent, and memory for one part's graph is enough. BatchNorm normalises
    part by part, as if each were a process with statistics of its own.

    Args:
        task: what the network is trained for.
        network: the network, or accelerate's wrapper of it.
        plain: the network itself.
        inputs: this process's share of the batch.
        parts: how many; the share has at least as many images.
        accelerator: mixed precision, and when gradients go from process to process: with the last part.

    Source: GradCache (Gao et al. 2021), "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
    """
    if parts == 1:
        with accelerator.autocast():
            outputs = task.forward(network, inputs)
        loss = task.loss(outputs, inputs)
        accelerator.backward(loss)
        return _mean(loss)

    shares = list(zip(*(tensor.tensor_split(parts) for tensor in inputs), strict=True))
    states, cached = [], []
    with torch.no_grad(), statistics_at_rest(plain), accelerator.autocast():
        for share in shares:
            states.append(random_state())
            cached.append(_as_tuple(task.forward(plain, share)))
    leaves = [torch.cat(tensors).requires_grad_() for tensors in zip(*cached, strict=True)]
    loss = task.loss(leaves[0] if len(leaves) == 1 else tuple(leaves), inputs)
    loss.backward()
    lengths = [len(outputs[0]) for outputs in cached]
    gradients = zip(*(leaf.grad.split(lengths) for leaf in leaves if leaf.grad is not None), strict=True)

    for index, (share, state, part) in enumerate(zip(shares, states, gradients, strict=True)):
        set_random_state(state)  # the same paths are dropped as the first time
        is_last = index == parts - 1
        with nullcontext() if is_last else accelerator.no_sync(network):
            with accelerator.autocast():
                outputs = _as_tuple(task.forward(network, share))
            accelerator.backward(sum((o * g).sum() for o, g in zip(outputs, part, strict=True)))
    return _mean(loss)


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _mean(loss: Tensor) -> float:
    return float(sum_all(loss.detach())) / process_count()
