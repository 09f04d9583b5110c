"""Few labels: fixed shares of the training images, balanced over the classes, each named by a checksum."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_adapt.errors import UserError

LABEL_SPLIT_SEED = 0  # of all label splits; the seed of a run has no part in them


@dataclass(frozen=True, eq=False)
class LabelSplit:
    """The training images whose labels are used.

    Attributes:
        share: of the training images, above 0 and at most 1.
        of: number of training images.
        indices: int64 (N,), ascending positions among the training images.
    """

    share: float
    of: int
    indices: Tensor

    @cached_property
    def sha256(self) -> str:
        """The checksum of the indices in decimal, ascending, each followed by a newline: `sha256sum` of such a file."""
        return hashlib.sha256("".join(f"{index}\n" for index in self.indices.tolist()).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{len(self.indices):,} of {self.of:,} ({100 * self.share:.4g}%), split {self.sha256[:12]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {"share": self.share, "images": len(self.indices), "of": self.of, "sha256": self.sha256}


def split_labels(labels: Tensor, share: float) -> LabelSplit:
    """The split that uses that share of the labels, rounded to whole images.

    Each class has as many images as any other, give or take one; one that has too few gives all of them. The split
    depends on the labels and their order alone, not on any run's seed, and a smaller share is part of a larger one:
    images are taken in the order of `numpy.random.RandomState(0).permutation(len(labels))`, whose stream numpy keeps
    fixed for ever, first one of each class, then a second one of each, and so on.

    Args:
        labels: (N,) int64.
        share: above 0, at most 1.

    Raises:
        ValueError: the share is outside its range, or has fewer images than there are classes.
    """
    if not 0 < share <= 1:
        raise UserError(f"data.labelled_share={share}: type a number above 0, at most 1")
    count, classes = round(share * len(labels)), len(labels.unique())
    if count < classes:
        raise UserError(
            f"data.labelled_share={share} is {count} of {len(labels)} images, and there are {classes} classes: "
            f"type at least {classes / max(1, len(labels)):.2g}"
        )
    order, rank = _shuffle(labels)
    taken = order[rank.argsort(stable=True)[:count]]
    return LabelSplit(share, len(labels), taken.sort().values)


def split_parts(labels: Tensor, parts: int) -> Tensor:
    """The part of each image, int64 (N,) in 0..parts - 1, to hold one part out and to train on the others.

    Parts differ by one image at most, and so does each class in them. They depend on the labels (N,) alone.
    """
    order, rank = _shuffle(labels)
    part = torch.empty_like(order)
    part[order[(labels[order] * len(labels) + rank).argsort()]] = torch.arange(len(labels)) % parts
    return part


def _shuffle(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The images in a fixed random order, and how many of its class come before each of them there."""
    order = torch.from_numpy(np.random.RandomState(LABEL_SPLIT_SEED).permutation(len(labels)).astype(np.int64))
    shuffled = labels[order]
    rank = torch.empty_like(order)
    for label in labels.unique():
        of_class = shuffled == label
        rank[of_class] = torch.arange(int(of_class.sum()))
    return order, rank
