"""Sets of images of one size, held in memory if they fit, otherwise decoded one by one."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ssl_adapt.data.label_splits import LabelSplit, split_labels
from ssl_adapt.data.pixels import rgb_pixels, without_pillow_warnings
from ssl_adapt.errors import UserError

_CHUNK_IMAGES = 16  # decoded by a thread at a time
_SLOW_IMAGE_SEC = 1e-3  # threads are used from this decoding time on


class ImageDataset(Protocol):
    """A map-style torch dataset: the pixels of image `index`, uint8 (3, image_px, image_px)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """A map-style dataset over pictures of one size, uint8 (N, height, width) or (N, height, width, 3)."""

    pictures: NDArray[np.uint8]
    image_px: int

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return rgb_pixels(Image.fromarray(self.pictures[index]), self.image_px)

    def at_once(self) -> Tensor | None:
        """The pixels of all images, (N, 3, image_px, image_px); None where they have another size than is asked for."""
        if self.pictures.shape[1:3] != (self.image_px, self.image_px):
            return None
        pixels = torch.from_numpy(self.pictures)
        channels_last = pixels if pixels.ndim == 4 else pixels.unsqueeze(3).expand(-1, -1, -1, 3)
        return channels_last.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, and their labels where there are any.

    `pixels` holds all of them, uint8 (N, 3, image_px, image_px), or is a dataset that decodes one at a time.
    `labels` are int64 (N,), indices into `classes`; without labels they are None and `classes` is empty.
    `bad_images` maps the name of every image that was replaced, as it could not be read, to the reason. A set that
    is decoded on demand fills it as images are read, in workers too; the subsets of a set share it.
    `label_split` says which of all training images they are, where only those with labels were kept.
    """

    name: str
    pixels: Tensor | ImageDataset
    classes: tuple[str, ...] = ()
    labels: Tensor | None = None
    bad_images: dict[str, str] = field(default_factory=dict)
    label_split: LabelSplit | None = None

    def __post_init__(self) -> None:
        assert (self.labels is None) == (not self.classes), "labels and classes come together"
        assert self.labels is None or self.labels.shape == (len(self.pixels),), "one label an image"

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Tensor) -> Tensor:
        """The images at `indices` (B,), uint8 (B, 3, image_px, image_px), on the CPU; decoded if necessary."""
        if isinstance(self.pixels, Tensor):
            return self.pixels.index_select(0, indices)
        with without_pillow_warnings():
            return torch.stack([self.pixels[index] for index in indices.tolist()])

    def subset(self, indices: Tensor) -> "ImageSet":
        """The set of the images at `indices` (M,), in that order, with the same classes."""
        if isinstance(self.pixels, Tensor):
            pixels: Tensor | ImageDataset = self.pixels.index_select(0, indices)
        else:
            pixels = Subset(cast(Dataset[Tensor], self.pixels), indices.tolist())
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        return ImageSet(self.name, pixels, self.classes, labels, self.bad_images, self.label_split)

    def labelled_part(self, share: float) -> "ImageSet":
        """The set of the images whose labels are used where a share of all labels is; see `split_labels`.

        Raises:
            ValueError: there are no labels, or the share is too small or none.
        """
        if self.labels is None:
            raise UserError(f"data.labelled_share={share} needs labels, and the images of {self.name!r} have none")
        split = split_labels(self.labels, share)
        return replace(self.subset(split.indices), label_split=split)


class ImageSplits(NamedTuple):
    """Training and test images with the same classes in the same order; `test` may be None."""

    train: ImageSet
    test: ImageSet | None


def create_image_set(
    name: str,
    dataset: ImageDataset,
    *,
    classes: tuple[str, ...],
    labels: Tensor | None,
    image_px: int,
    memory_limit_bytes: int,
    bad_images: dict[str, str],
) -> ImageSet:
    """A set that holds its pixels if they take at most `memory_limit_bytes`, and otherwise decodes on demand.

    `bad_images` is the record that `dataset` writes to.
    """
    fits = len(dataset) * 3 * image_px * image_px <= memory_limit_bytes
    return ImageSet(name, _decode_all(dataset, image_px) if fits else dataset, classes, labels, bad_images)


def _decode_all(dataset: ImageDataset, image_px: int) -> Tensor:
    if isinstance(dataset, ArrayImages) and (ready := dataset.at_once()) is not None:
        return ready
    pixels = torch.empty(len(dataset), 3, image_px, image_px, dtype=torch.uint8)

    def decode(start: int) -> None:
        for index in range(start, min(start + _CHUNK_IMAGES, len(dataset))):
            pixels[index] = dataset[index]

    with without_pillow_warnings():
        decode(0)  # not timed: Pillow loads its formats at the first picture
        before_sec = time.perf_counter()
        decode(0)
        # Pillow decodes without the interpreter's lock, so threads help with photographs. With thumbnails they
        # wait for the lock, and two took twice as long as one (20,000 of 32 px: 3.7 s, not 1.8 s).
        slow = time.perf_counter() - before_sec > _CHUNK_IMAGES * _SLOW_IMAGE_SEC
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1) if slow else 1) as pool:
            for _ in pool.map(decode, range(_CHUNK_IMAGES, len(dataset), _CHUNK_IMAGES)):
                pass  # an error of any chunk is raised here
    return pixels
