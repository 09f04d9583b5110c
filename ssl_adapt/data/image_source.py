"""Image files in a folder or in a tar, with one interface for their names and bytes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_adapt.data.tar_files import TarFiles, index_tar
from ssl_adapt.errors import UserError


class ImageFiles(Protocol):
    """The images at `root`; their `names` are relative to it, with `/`, sorted, without hidden files."""

    @property
    def root(self) -> Path: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def left_out(self) -> dict[str, str]:
        """Images that are not among `names`, with the reason: links of a tar to nothing in it, for example."""

    def read(self, name: str, *, max_bytes: int) -> bytes | None:
        """The bytes of any file at `root`, image or not, cut after `max_bytes` + 1; None if there is no such file."""

    def all_names(self) -> list[str]:
        """The sorted names of all files, including those that are no images."""


@dataclass(frozen=True)
class FolderFiles:
    """Images anywhere below a folder; links are followed, also out of the folder, as the user has made them."""

    root: Path
    names: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, *, max_bytes: int) -> bytes | None:
        path = self.root / name
        if not path.is_file():  # reading a pipe would wait, and a device has no end
            return None
        with path.open("rb") as file:
            return file.read(min(path.stat().st_size, max_bytes + 1))  # Python allocates what it is asked for

    def all_names(self) -> list[str]:
        return sorted(_find_files(self.root))


def open_image_files(root: Path, *, memory_limit_bytes: int) -> ImageFiles:
    """The image files of a folder, or of a tar that is plain or compressed by gzip, bzip2 or xz; there may be none.

    Raises:
        ValueError: `root` is missing or neither folder nor tar; a folder in it cannot be read; the tar is broken, has a
            name twice, or needs more memory than the limit, as a compressed one may.
    """
    if root.is_dir():
        return FolderFiles(root, _image_names(_find_files(root)))
    if not root.exists():
        raise UserError(f"data.root={root} does not exist: type the path of a folder of images or of a tar of one")
    members, left_out, _ = index_tar(root, memory_limit_bytes=memory_limit_bytes)
    images_left_out = {name: left_out[name] for name in _image_names(left_out)}
    return TarFiles(root, _image_names(members), images_left_out, members)


def _find_files(root: Path) -> Iterator[str]:
    """The names of everything but folders, including broken links and pipes; links to a parent folder are skipped."""
    folders: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while folders:
        folder, above = folders.pop()
        try:
            status = os.stat(root / folder)
            entries = list(os.scandir(root / folder))
        except OSError as error:
            raise UserError(
                f"data.root={root} holds the folder {folder or '.'!r}, which cannot be read ({error.strerror}): "
                "change its permissions or move it elsewhere"
            ) from None
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        for entry in entries:
            # os.path.isdir alone asks the disk for every file; entry.is_dir() alone raises at a link to itself.
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                folders.append((f"{folder}{entry.name}/", above | {identity}))
            else:
                yield folder + entry.name


def _image_names(names: Iterable[str]) -> tuple[str, ...]:
    """The images among `names`, sorted, without hidden ones ("._a.png" is a Mac's note about a.png)."""
    return tuple(
        sorted(
            name
            for name in names
            if name.lower().endswith(IMG_EXTENSIONS)
            and not any(part.startswith(".") and part != ".." for part in name.split("/"))
        )
    )
