"""torchvision's data sets, which are downloaded where they are absent."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN, FashionMNIST

from ssl_adapt.data.collection import Collection, Labelled
from ssl_adapt.data.image_set import ArrayImages
from ssl_adapt.errors import UserError

_DOWNLOAD_TIMEOUT_SEC = 10.0
_BY_TRAIN: tuple[dict[str, Any], ...] = ({"train": True}, {"train": False})
_BY_SPLIT: tuple[dict[str, Any], ...] = ({"split": "train"}, {"split": "test"})


class TorchvisionSet(NamedTuple):
    """A data set of torchvision, a file or folder below its root that it has, and the arguments of its splits."""

    dataset: Any
    own_files: str
    splits: tuple[dict[str, Any], ...] = _BY_TRAIN


TORCHVISION: dict[str, TorchvisionSet] = {
    "fashion_mnist": TorchvisionSet(FashionMNIST, "FashionMNIST/raw"),
    "cifar10": TorchvisionSet(CIFAR10, CIFAR10.base_folder),
    "cifar100": TorchvisionSet(CIFAR100, CIFAR100.base_folder),
    "svhn": TorchvisionSet(SVHN, "train_32x32.mat", _BY_SPLIT),
    "stl10": TorchvisionSet(STL10, STL10.base_folder, _BY_SPLIT),
    "stl10_unlabeled": TorchvisionSet(STL10, STL10.base_folder, ({"split": "unlabeled"},)),
}


def torchvision_collection(name: str, root: Path, image_px: int) -> Collection:
    """The splits of a set of `TORCHVISION`: for training, and for testing where it has a second one.

    Raises:
        ValueError: files are missing and their download fails; the message says what to type.
    """
    dataset_class, own_files, arguments = TORCHVISION[name]
    try:
        # Checks its files first and downloads only what is missing.
        with _socket_timeout(_DOWNLOAD_TIMEOUT_SEC):
            splits = [dataset_class(root, download=True, **split) for split in arguments]
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"data.name={name}: {root} does not hold all files of torchvision's {dataset_class.__name__} (it needs "
            f"{own_files}), and the download failed ({' '.join(str(error).split())}); type data.root=FOLDER where "
            f"FOLDER/{own_files} is whole, or where train/ and test/ hold class folders, or a tar of that; "
            "data.name=digits needs no download"
        ) from None
    train, *test = (_labelled(split, image_px) for split in splits)
    classes = tuple(getattr(splits[0], "classes", map(str, range(10)))) if train.labels is not None else ()
    return Collection(classes, train, test[0] if test else None)


def _labelled(dataset: Any, image_px: int) -> Labelled:
    pictures = np.asarray(dataset.data)
    if pictures.ndim == 4 and pictures.shape[1] == 3:  # channels first
        pictures = pictures.transpose(0, 2, 3, 1)
    labels = torch.as_tensor(dataset.labels if hasattr(dataset, "labels") else dataset.targets, dtype=torch.int64)
    return Labelled(ArrayImages(pictures, image_px), labels if labels.min() >= 0 else None)  # -1: unlabelled


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sets a time limit for connections, as torchvision's downloads have none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
