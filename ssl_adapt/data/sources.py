"""Data sets by name: scikit-learn's digits, torchvision's downloads, folders and tars."""

import difflib
import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from ssl_adapt.data.batches import epoch_order
from ssl_adapt.data.image_dataset import FileImages, OnBadImage, bad_image_sentence
from ssl_adapt.data.image_set import ArrayImages, ImageDataset, ImageSet, ImageSplits, create_image_set
from ssl_adapt.data.image_source import ImageFiles, open_image_files
from ssl_adapt.data.layout import Classes, find_layout
from ssl_adapt.data_names import DATA_NAMES
from ssl_adapt.errors import UserError

# name: torchvision's dataset, and the folder below its root where it looks for its files
_TORCHVISION: dict[str, tuple[Any, str]] = {
    "fashion_mnist": (FashionMNIST, "FashionMNIST/raw"),
    "cifar10": (CIFAR10, CIFAR10.base_folder),
    "cifar100": (CIFAR100, CIFAR100.base_folder),
}

_DOWNLOAD_ROOT = Path("data")
_DOWNLOAD_TIMEOUT_SEC = 10.0
_TINY_IMAGENET_ROOT = Path("data/tiny-imagenet-200")
_TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_DIGITS_TEST_COUNT = 500


class _Labelled(NamedTuple):
    images: ImageDataset
    labels: Tensor | None


class _Collection(NamedTuple):
    classes: tuple[str, ...]
    train: _Labelled
    test: _Labelled | None


def load_image_splits(
    name: str,
    *,
    root: str | Path | None = None,
    image_px: int,
    memory_limit_bytes: int = 4 * 2**30,
    on_bad_image: OnBadImage = "error",
    train_images: int | None = None,
    labelled_share: float | None = None,
) -> ImageSplits:
    """The training and test images of a collection, RGB uint8 of `image_px`, with labels where it has any.

    `digits` needs nothing. `fashion_mnist`, `cifar10` and `cifar100` are read from torchvision's files in
    `root` (default `data/`), which are downloaded if absent. `tiny_imagenet` is read from `root` (default
    `data/tiny-imagenet-200`), `folder` from the `root` that must be given. The `root` of any name may also
    hold class folders under `train/` and `test/` or `val/`, or be a tar of that; see `find_layout` for
    other layouts. A set of at most `memory_limit_bytes` of pixels is decoded into memory, a larger one batch
    by batch.

    An image of a folder or tar that cannot be read is an error: here, or, for a set that is not in memory, when its
    batch is made. With `on_bad_image="replace"` it is replaced by the next image of its class (of any, without
    classes) that can be read, in the order of names, starting again after the last; links of a tar
    that lead to no file in it, and names that leave it, are left out. `ImageSet.bad_images` names them all.

    Only `train_images` of the training images are kept, the same for all seeds (None: all of them); of these, where
    there is a `labelled_share`, those of `split_labels`.

    Raises:
        ValueError: the name is unknown, `root` is missing or holds no usable images, a class is in the test
            split alone or has no image that can be read, a download fails, or an image cannot be decoded; the
            message says what to do.
    """
    if name not in DATA_NAMES:
        near = difflib.get_close_matches(name, DATA_NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown data.name {name!r}; {hint}available: {', '.join(DATA_NAMES)}")
    if image_px < 1:
        raise UserError(f"image size {image_px}: type a number of pixels of at least 1")
    if on_bad_image not in get_args(OnBadImage):
        raise UserError(f"data.on_bad_image={on_bad_image!r}: type one of {', '.join(get_args(OnBadImage))}")
    folder = None if root is None else Path(os.path.expanduser(root))
    collection = _find_collection(name, folder, image_px, memory_limit_bytes, on_bad_image)

    def image_set(split: _Labelled) -> ImageSet:
        return create_image_set(
            name,
            split.images,
            classes=collection.classes,
            labels=split.labels,
            image_px=image_px,
            memory_limit_bytes=memory_limit_bytes,
            bad_images=split.images.bad_images if isinstance(split.images, FileImages) else {},
        )

    train = image_set(collection.train)
    if train_images is not None:
        if train_images > len(train):
            raise UserError(f"data.train_images={train_images} is more than the {len(train)} there are: lower it")
        train = train.subset(epoch_order(len(train), seed=0, epoch=0)[:train_images].sort().values)
    if labelled_share is not None:
        train = train.labelled_part(labelled_share)
    return ImageSplits(train, image_set(collection.test) if collection.test else None)


def _find_collection(
    name: str, root: Path | None, image_px: int, memory_limit_bytes: int, on_bad_image: OnBadImage
) -> _Collection:
    if name == "digits" and root is None:
        return _digits(image_px)
    if name in _TORCHVISION:
        own_files = (root or _DOWNLOAD_ROOT) / _TORCHVISION[name][1]
        # Without a root given, the default one may have images of other data sets. A missing tar is an error;
        # a missing folder is created by the download.
        if root is not None and not own_files.exists() and (root.exists() or root.name.endswith(_TAR_ENDINGS)):
            files = open_image_files(root, memory_limit_bytes=memory_limit_bytes)
            if files.names or root.is_file():
                return _files(files, image_px, on_bad_image)
        return _torchvision(name, root or _DOWNLOAD_ROOT, image_px)
    if name == "tiny_imagenet":
        root = root or _TINY_IMAGENET_ROOT
        if not root.exists():
            raise UserError(
                f"no Tiny ImageNet in {root}: unpack {_TINY_IMAGENET_URL} so that {root}/train and "
                f"{root}/val exist, or type data.root=FOLDER_OR_TAR where it lies"
            )
    if root is None:
        raise UserError("data.name=folder needs data.root=PATH, a folder of images or a tar of one")
    held_out = ("val", "test") if name == "tiny_imagenet" else ("test", "val")  # its test/ has no labels
    return _files(open_image_files(root, memory_limit_bytes=memory_limit_bytes), image_px, on_bad_image, held_out)


def _files(
    files: ImageFiles, image_px: int, on_bad_image: OnBadImage, held_out: tuple[str, ...] = ("test", "val")
) -> _Collection:
    if files.left_out and on_bad_image == "error":
        raise UserError(bad_image_sentence(files, *next(iter(files.left_out.items()))))
    layout = find_layout(files, held_out=held_out)
    classes = layout.class_names
    index_of = {label: index for index, label in enumerate(classes)}

    def labelled(split: Classes, left_out: dict[str, str]) -> _Labelled:
        images = FileImages(files, tuple(split), tuple(split.values()), image_px, on_bad_image, dict(left_out))
        return _Labelled(images, torch.tensor([index_of[c] for c in split.values() if c]) if classes else None)

    # What was left out belongs to neither split; the training set's record has it.
    train = labelled(layout.train, files.left_out)
    return _Collection(classes, train, labelled(layout.test, {}) if layout.test else None)


def _digits(image_px: int) -> _Collection:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,297 for training, 500 for testing.

    The split keeps the share of every class (`train_test_split`, `random_state=0`) and the order of the
    images.

    Source: sklearn.datasets.load_digits, the test part of UCI's "Optical Recognition of Handwritten Digits".
    """
    from sklearn.datasets import load_digits  # here, as it takes a second and only this data set needs it
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pictures = (digits.images * (255 / 16)).round().astype(np.uint8)  # 0..16 -> 0..255
    labels = torch.as_tensor(digits.target, dtype=torch.int64)
    splits = train_test_split(
        np.arange(len(labels)), test_size=_DIGITS_TEST_COUNT, stratify=digits.target, random_state=0
    )
    train, test = (
        _Labelled(ArrayImages(pictures[chosen], image_px), labels[chosen]) for chosen in map(np.sort, splits)
    )
    return _Collection(tuple(str(digit) for digit in digits.target_names), train, test)


def _torchvision(name: str, root: Path, image_px: int) -> _Collection:
    dataset_class, own_folder = _TORCHVISION[name]
    try:
        # Checks its files first and downloads only what is missing.
        with _socket_timeout(_DOWNLOAD_TIMEOUT_SEC):
            splits = [dataset_class(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"data.name={name}: {root}/{own_folder} does not hold all files of torchvision's "
            f"{dataset_class.__name__}, and the download failed ({' '.join(str(error).split())}); type "
            f"data.root=FOLDER where FOLDER/{own_folder} holds them, or where train/ and test/ hold class "
            "folders, or a tar of that; "
            "data.name=digits needs no download"
        ) from None
    train, test = (
        _Labelled(ArrayImages(np.asarray(split.data), image_px), torch.as_tensor(split.targets, dtype=torch.int64))
        for split in splits
    )
    return _Collection(tuple(splits[0].classes), train, test)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sets a time limit for connections, as torchvision's downloads have none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
