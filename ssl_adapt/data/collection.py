"""A training and a test split, and how they come from image files and their layout."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_adapt.data.image_dataset import FileImages, OnBadImage, bad_image_sentence
from ssl_adapt.data.image_set import ImageDataset
from ssl_adapt.data.image_source import ImageFiles
from ssl_adapt.data.layout import Classes, Layout
from ssl_adapt.errors import UserError


class Labelled(NamedTuple):
    """Images, and their labels, int64 indices into the classes of the collection; None where there are none."""

    images: ImageDataset
    labels: Tensor | None


class Collection(NamedTuple):
    """The splits of a data set; `test` is None where nothing is held out."""

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled | None


def check_left_out(files: ImageFiles, on_bad_image: OnBadImage) -> None:
    """Refuse files of which images were left out.

    Raises:
        ValueError: images were left out, and `on_bad_image` is "error"; the message names the first.
    """
    if files.left_out and on_bad_image == "error":
        raise UserError(bad_image_sentence(files, *next(iter(files.left_out.items()))))


def file_collection(files: ImageFiles, layout: Layout, image_px: int, on_bad_image: OnBadImage) -> Collection:
    """The collection of `files` whose splits and classes `layout` names.

    Raises:
        ValueError: images were left out, and `on_bad_image` is "error".
    """
    check_left_out(files, on_bad_image)
    classes = layout.class_names
    index_of = {label: index for index, label in enumerate(classes)}

    def labelled(split: Classes, left_out: dict[str, str]) -> Labelled:
        images = FileImages(files, tuple(split), tuple(split.values()), image_px, on_bad_image, dict(left_out))
        return Labelled(
            images, torch.tensor([index_of[c] for c in split.values() if c is not None]) if classes else None
        )

    # What was left out belongs to neither split; the training set's record has it.
    train = labelled(layout.train, files.left_out)
    return Collection(classes, train, labelled(layout.test, {}) if layout.test else None)
