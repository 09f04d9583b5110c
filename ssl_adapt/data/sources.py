"""Data sets by name: scikit-learn's digits, torchvision's downloads, folders, tars, lists and shards."""

import difflib
import os
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ssl_adapt.data.batches import epoch_order
from ssl_adapt.data.collection import Collection, Labelled, check_left_out, file_collection
from ssl_adapt.data.columns import Columns
from ssl_adapt.data.csv_list import open_csv
from ssl_adapt.data.hub_dataset import open_hub_dataset
from ssl_adapt.data.image_dataset import FileImages, OnBadImage
from ssl_adapt.data.image_set import ArrayImages, ImageSet, ImageSplits, create_image_set
from ssl_adapt.data.image_source import ImageFiles, open_image_files
from ssl_adapt.data.layout import find_layout
from ssl_adapt.data.shards import open_shards
from ssl_adapt.data.torchvision_sets import TORCHVISION, torchvision_collection
from ssl_adapt.data_names import DATA_NAMES, ROOTS, WITH_COLUMNS
from ssl_adapt.errors import UserError

_DOWNLOAD_ROOT = Path("data")
_TINY_IMAGENET_ROOT = Path("data/tiny-imagenet-200")
_TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_DIGITS_TEST_COUNT = 500


def load_image_splits(
    name: str,
    *,
    root: str | Path | None = None,
    image_px: int,
    memory_limit_bytes: int = 4 * 2**30,
    in_memory: bool = True,
    on_bad_image: OnBadImage = "error",
    train_images: int | None = None,
    labelled_share: float | None = None,
    columns: Columns = Columns(),  # noqa: B008 (it is immutable)
) -> ImageSplits:
    """The training and test images of a collection, RGB uint8 of `image_px`, with labels where it has any.

    `digits` needs nothing. The sets of `TORCHVISION` are read from torchvision's files in `root` (default
    `data/`), which are downloaded if absent. `tiny_imagenet` is read from `root` (default `data/tiny-imagenet-200`).
    The others need a `root`: `folder` a folder or tar, `csv` a file (see `open_csv`), `hf` a data set of Hugging Face
    (`open_hub_dataset`), `webdataset` a pattern of tars (`open_shards`); `columns` says where the last three have
    images and labels. The `root` of the first ones and of `folder` may hold class folders under `train/` and `test/`
    or `val/`, or be a tar of that; see `find_layout` for other layouts. A set of at most `memory_limit_bytes` of
    pixels is decoded into memory, a larger one batch by batch, as all are where `in_memory` is false, for those who
    read each image once.

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
    if any(columns) and name not in WITH_COLUMNS:
        raise UserError(f"data.name={name} has no columns to name: leave out data.image_column and data.label_column")
    folder = None if root is None else Path(os.path.expanduser(root))
    collection = _find_collection(name, folder, image_px, memory_limit_bytes, on_bad_image, columns)

    def image_set(split: Labelled) -> ImageSet:
        return create_image_set(
            name,
            split.images,
            classes=collection.classes,
            labels=split.labels,
            image_px=image_px,
            memory_limit_bytes=memory_limit_bytes if in_memory else 0,
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
    name: str, root: Path | None, image_px: int, memory_limit_bytes: int, on_bad_image: OnBadImage, columns: Columns
) -> Collection:
    if name in ROOTS and root is None:
        raise UserError(f"data.name={name} needs data.root={ROOTS[name]}")
    if name == "digits" and root is None:
        return _digits(image_px)
    if name in TORCHVISION:
        own_files = (root or _DOWNLOAD_ROOT) / TORCHVISION[name].own_files
        # Without a root given, the default one may have images of other data sets. A missing tar is an error;
        # a missing folder is created by the download.
        if root is not None and not own_files.exists() and (root.exists() or root.name.endswith(_TAR_ENDINGS)):
            files = open_image_files(root, memory_limit_bytes=memory_limit_bytes)
            if files.names or root.is_file():
                return _folder(files, ("test", "val"), image_px, on_bad_image)
        return torchvision_collection(name, root or _DOWNLOAD_ROOT, image_px)
    root = root or _TINY_IMAGENET_ROOT
    if name == "tiny_imagenet" and not root.exists():
        raise UserError(
            f"no Tiny ImageNet in {root}: unpack {_TINY_IMAGENET_URL} so that {root}/train and "
            f"{root}/val exist, or type data.root=FOLDER_OR_TAR where it lies"
        )
    if name == "csv":
        return file_collection(*open_csv(root, columns, on_bad_image), image_px, on_bad_image)
    if name == "hf":
        return file_collection(*open_hub_dataset(root, columns), image_px, on_bad_image)
    if name == "webdataset":
        return file_collection(*open_shards(root, columns, on_bad_image), image_px, on_bad_image)
    held_out = ("val", "test") if name == "tiny_imagenet" else ("test", "val")  # its test/ has no labels
    files = open_image_files(root, memory_limit_bytes=memory_limit_bytes)
    return _folder(files, held_out, image_px, on_bad_image)


def _folder(files: ImageFiles, held_out: tuple[str, ...], image_px: int, on_bad_image: OnBadImage) -> Collection:
    check_left_out(files, on_bad_image)  # first, as what is left may be too little for any layout
    return file_collection(files, find_layout(files, held_out=held_out), image_px, on_bad_image)


def _digits(image_px: int) -> Collection:
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
    train, test = (Labelled(ArrayImages(pictures[chosen], image_px), labels[chosen]) for chosen in map(np.sort, splits))
    return Collection(tuple(str(digit) for digit in digits.target_names), train, test)
