"""Accuracy of a classifier on a whole set of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.data import ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import extract_features, process_share
from ssl_adapt.processes import gather_rows, sum_all


@dataclass(frozen=True)
class Accuracy:
    """The share of images that a classifier gets right.

    Attributes:
        top1: fraction in [0, 1] of the images whose class has the largest logit.
        top5: fraction in [0, 1] of the images whose class is among the five largest, or among all if fewer.
        count: images.
        loss: mean cross entropy, without label smoothing.
    """

    top1: float
    top5: float
    count: int
    loss: float


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a probability of which `share` was seen in `count` trials.

    Source: Wilson 1927; equals scipy.stats.binomtest(...).proportion_ci(method="wilson").
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def logits_accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """Accuracy of logits (N, K) against labels (N,) int64, N >= 1 over all processes.

    Raises:
        ValueError: a label has no logit, in any process.

    Distributed:
        Collective: each process gives its own rows, and all get the accuracy of all rows.
    """
    classes, largest = logits.shape[1], int(gather_rows(labels).max())
    if largest >= classes:
        raise UserError(
            f"the network gives {classes} logits and the labels reach {largest}; "
            f"create it with num_classes={largest + 1} or more"
        )
    hits = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    sums = torch.stack([hits[:, 0].sum().double(), hits.sum().double(), loss, torch.tensor(len(labels)).double()])
    top1, top5, loss_sum, count = sum_all(sums).tolist()
    return Accuracy(top1=top1 / count, top5=top5 / count, count=int(count), loss=loss_sum / count)


def evaluate_accuracy(
    network: nn.Module | Callable[[Tensor], Tensor],
    image_set: ImageSet,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
    workers: int,
    advance: Callable[[int], object] | None = None,
) -> Accuracy:
    """Accuracy of the network in evaluation mode on all images, none augmented.

    Images pass as in `extract_features`: each once, in float32 without autocast and without gradients; the network
    is left unchanged.

    Args:
        network: maps (B, 3, H, W) to logits (B, K) in evaluation mode, on ``device``.
        image_set: at least one image, with labels.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, likewise.
        batch_size: images at a time.
        device: where the network is.
        workers: processes that decode, where the set is not in memory.
        advance: called after each batch with the number of its images.

    Raises:
        ValueError: If the set is empty or without labels, the network returns anything but (B, K), or a label
            has no logit.

    Distributed:
        Collective: each process evaluates its share of the images, and all get the accuracy on all.
    """
    if image_set.labels is None:
        raise UserError(f"the images of {image_set.name!r} have no labels; pass a set that has a class per image")
    share = process_share(len(image_set))
    logits = extract_features(
        network, image_set, mean=mean, std=std, batch_size=batch_size, device=device, workers=workers, indices=share,
        advance=advance,
    )  # fmt: skip
    return logits_accuracy(logits, image_set.labels[share])
