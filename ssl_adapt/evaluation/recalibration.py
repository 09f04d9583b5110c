"""BatchNorm's running statistics made anew: what a network that was just changed could score."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ssl_adapt.data import ImageSet, iterate_batches
from ssl_adapt.evaluation.features import evaluation_mode, normalise

CALIBRATION_IMAGES = 5000  # of the training images, at most


@contextmanager
def recalibrated(
    network: nn.Module,
    image_set: ImageSet,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
    workers: int,
) -> Iterator[None]:
    """Inside the block BatchNorm's statistics are those of the first images; after it they are as they were.

    The images are not augmented, and no random numbers are drawn that others would miss.

    Distributed: every process sees the same images.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    copies = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    indices = torch.arange(min(len(image_set), CALIBRATION_IMAGES))
    batches = iterate_batches(
        image_set, indices, batch_size=batch_size, device=device, workers=workers, drop_last=len(indices) > batch_size
    )
    try:
        with evaluation_mode(network), torch.random.fork_rng():  # the mode is each module's own afterwards
            update_bn((normalise(batch.images, mean, std) for batch in batches), network)
        yield
    finally:
        with torch.no_grad():
            for buffer, copy in copies:
                buffer.copy_(copy)
