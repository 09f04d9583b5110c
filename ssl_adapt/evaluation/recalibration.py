"""BatchNorm's running statistics made anew: what a network that was just changed could score."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ssl_adapt.evaluation.features import evaluation_mode


@contextmanager
def recalibrated(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[None]:
    """Inside the block BatchNorm's statistics are the means over these batches; after it they are as they were.

    Args:
        network: has its training flags again inside the block. No random numbers are drawn that others would miss.
        batches: what it takes: (B, 3, H, W), normalised, on its device.

    Distributed: every process sees the same batches.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    copies = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        with evaluation_mode(network), torch.random.fork_rng():  # the mode is each module's own afterwards
            update_bn(batches, network)
        yield
    finally:
        with torch.no_grad():
            for buffer, copy in copies:
                buffer.copy_(copy)
