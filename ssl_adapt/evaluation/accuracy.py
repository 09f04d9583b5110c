"""Accuracy of a classifier on a set of labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ssl_adapt.data import ImageSet
from ssl_adapt.evaluation.features import extract_features


@dataclass(frozen=True)
class Accuracy:
    """Shares of images, 0..1, whose label is the first guess or among the first five; the loss is a mean."""

    top1: float
    top5: float
    loss: float
    count: int


def evaluate_accuracy(
    network: nn.Module,
    image_set: ImageSet,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
    workers: int,
) -> Accuracy:
    """The accuracy of a network that maps images (B, 3, H, W) to logits (B, classes), on the whole set.

    Images are not augmented; the network is in evaluation mode for it and left as it was. With fewer than five
    classes, `top5` counts all of them and is 1.

    Raises:
        ValueError: if the set is empty or has no labels, or a label is beyond the network's classes.
    """
    if image_set.labels is None:
        raise ValueError("the set of images has no labels; accuracy needs them")
    labels = image_set.labels
    logits = extract_features(
        network, image_set, mean=mean, std=std, batch_size=batch_size, device=device, workers=workers
    )
    if int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"label {int(labels.max())} is beyond the network's {logits.shape[1]} classes")
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    return Accuracy(
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(dim=1).double().mean().item(),
        loss=F.cross_entropy(logits, labels).item(),
        count=len(labels),
    )
