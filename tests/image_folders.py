"""Folders and tars of images for the tests of the data part."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ssl_adapt.data import ImageSet

PX = 8


def noise(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(folder: Path, *names: str) -> dict[str, NDArray[np.uint8]]:
    """Writes a PNG of PX for each name, all different; the pixels by name."""
    pixels = {name: noise(PX, PX, seed=seed) for seed, name in enumerate(names)}
    for name, array in pixels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / name, format="PNG")
    return pixels


def tar_of(folder: Path, tar: Path, *, inside: str, mode: str = "w") -> Path:
    with tarfile.open(tar, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, arcname=inside)
    return tar


def write_class_folders(folder: Path, held_out: str = "test") -> None:
    names = [f"{split}/{label}/{i}.png" for split in ("train", held_out) for label in "ba" for i in range(3)]
    write_images(folder, *names)


def all_images(image_set: ImageSet) -> torch.Tensor:
    return image_set.images(torch.arange(len(image_set)))


def as_folder(folder: Path, tmp_path: Path) -> Path:
    return folder


def as_nested_tar(folder: Path, tmp_path: Path) -> Path:
    return tar_of(folder, tmp_path / "images.tar", inside="home/images")


def as_bare_tar(folder: Path, tmp_path: Path) -> Path:
    return tar_of(folder, tmp_path / "images.tar", inside=".")


def as_tgz(folder: Path, tmp_path: Path) -> Path:
    return tar_of(folder, tmp_path / "images.tgz", inside="images", mode="w:gz")


PLACES = [as_folder, as_nested_tar, as_bare_tar, as_tgz]
Place = Callable[[Path, Path], Path]
