"""Features of a set of images: of a network in evaluation mode, or raw pixels as a baseline."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ssl_adapt.data import ImageSet, iterate_batches
from ssl_adapt.errors import UserError
from ssl_adapt.processes import process_count, process_index


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Float32 images (B, C, H, W): those in 0..255 over 255, minus the mean and over the std of each channel."""
    channel_mean, channel_std = (
        torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1) for values in (mean, std)
    )
    return (images.float() / 255 - channel_mean) / channel_std


def process_share(count: int) -> Tensor:
    """The indices of this process's images, int64: `count` images are divided evenly, each to one process."""
    return torch.arange(process_index(), count, process_count())


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """All modules are in evaluation mode inside the block; after it each has its former training flag."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def iterate_features(
    network: nn.Module | Callable[[Tensor], Tensor],
    image_set: ImageSet,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
    workers: int,
    order: Tensor,
) -> Iterator[Tensor]:
    """The features (B, D) of one batch after the other of the images at `order`, (N,) int64; see `extract_features`.

    The network is in evaluation mode only while it works, so that what is done between two batches is as outside.

    Raises:
        ValueError: If the network returns anything but (B, D).
    """
    batches = iterate_batches(image_set, order, batch_size=batch_size, device=device, workers=workers, drop_last=False)
    for batch in batches:
        mode = evaluation_mode(network) if isinstance(network, nn.Module) else nullcontext()
        # no_grad, as tensors that a module caches in inference_mode can't be used in training
        with mode, torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
            output = network(normalise(batch.images, mean, std))
        if output.shape[:1] != batch.images.shape[:1] or output.ndim != 2:
            raise UserError(
                f"the network maps images {tuple(batch.images.shape)} to {tuple(output.shape)}, "
                "not to (B, D); pass one that pools, such as timm.create_model(..., num_classes=0)"
            )
        yield output.float().cpu()


def extract_features(
    network: nn.Module | Callable[[Tensor], Tensor],
    image_set: ImageSet,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
    workers: int,
    indices: Tensor | None = None,
    advance: Callable[[int], object] | None = None,
) -> Tensor:
    """Features (N, D) of all images in the set's order, or of those at the indices, float32 on the CPU.

    Every image is seen once, not augmented, in float32 without autocast and without gradients. The network is
    left as it was: parameters, buffers (evaluation mode does not change BatchNorm's statistics) and training flags.

    Args:
        network: maps (B, 3, H, W) to (B, D) on ``device``. A callable that is no module, such as a bound
            method, hides its modules: call this inside ``evaluation_mode(module)`` then. A module that
            accelerate has prepared switches autocast on again: pass the unwrapped one.
        image_set: at least one image.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, likewise.
        batch_size: images at a time.
        device: where the network is.
        workers: processes that decode, where the set is not in memory.
        indices: (N,) int64: only these images, in this order; N may be 0, and the features are (0, D) then.
        advance: called after each batch with the number of its images.

    Raises:
        ValueError: If the set is empty or the network returns anything but (B, D).
    """
    if len(image_set) == 0:
        raise UserError("the set of images is empty; pass one with at least 1 image")
    order = torch.arange(len(image_set)) if indices is None else indices
    count = len(order)
    if count == 0:
        order = torch.tensor([0])  # only to find D, for a process without any images
    features = []
    for batch in iterate_features(
        network, image_set, mean=mean, std=std, batch_size=batch_size, device=device, workers=workers, order=order
    ):
        features.append(batch)
        if advance is not None:
            advance(len(batch))
    return torch.cat(features)[:count]


def raw_pixels(image_set: ImageSet, indices: Tensor | None = None) -> Tensor:
    """Pixels as features (N, 3 * H * W), float32 in [0, 1] on the CPU: a baseline without learning.

    Of all images, or of those at the indices, (N,) int64; N may be 0.
    """
    order = torch.arange(len(image_set)) if indices is None else indices
    images = image_set.images(order if len(order) else torch.tensor([0]))  # one image, to find its size
    return images[: len(order)].flatten(1).float().div_(255)
