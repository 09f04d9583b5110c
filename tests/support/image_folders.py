"""Folders and tars of images for the tests of the data part."""

import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def write_noise(folder: Path, count: int, *, mode: str = "L", size: tuple[int, int] = (9, 12)) -> None:
    """Writes `count` PNGs of noise, 0.png and so on, into a new folder."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(len(str(folder)))
    for index in range(count):
        pixels = generator.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")


def image_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def png(seed: int = 0) -> bytes:
    return image_bytes(Image.fromarray(noise(PX, PX, seed=seed)), "PNG")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of PX whose header states another size, its checksum put right."""
    content = bytearray(png())
    content[16:24] = struct.pack(">2I", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def png_with_two_animations() -> bytes:
    """A PNG that Pillow warns of, as it says twice how many pictures it has."""
    content = png()
    chunk = b"acTL" + struct.pack(">2I", 1, 0)
    chunk = struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:33] + chunk * 2 + content[33:]


@contextmanager
def without_root_rights() -> Iterator[None]:
    """Root may read what nobody may; then this is nobody for a while."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


Member = tuple[str, bytes] | tarfile.TarInfo


def member(name: str, *, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A tar's member without content: a link to `target`, a pipe, ..."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def write_tar(path: Path, *members: Member, mode: str = "w") -> Path:
    """A tar of files with their content, and of members that have none."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for one in members:
            if isinstance(one, tarfile.TarInfo):
                archive.addfile(one)
            else:
                header = tarfile.TarInfo(one[0])
                header.size = len(one[1])
                archive.addfile(header, io.BytesIO(one[1]))
    return path


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
