"""BatchNorm's running statistics, recomputed: for the score of a network that was just changed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_adapt.evaluation.features import evaluation_mode


@contextmanager
def recalibrated(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[None]:
    """Inside the block BatchNorm's statistics are the means over these batches; after it they are as they were.

    Args:
        network: its training flags are restored inside the block; only BatchNorm is in training mode until then.
        batches: its inputs (B, 3, H, W), normalised, on its device.

    Distributed: every process sees the same batches.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    copies = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    momenta = [norm.momentum for norm in norms]
    try:
        with evaluation_mode(network), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean of all batches
                norm.train()
            for batch in batches:
                network(batch)
        yield
    finally:
        with torch.no_grad():
            for buffer, copy in copies:
                buffer.copy_(copy)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
