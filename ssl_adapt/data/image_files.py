"""Image files in a folder or in a tar, behind one interface: their names and their bytes."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image, UnidentifiedImageError
from timm.data.readers.reader_image_folder import find_images_and_targets
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_adapt.data.pixels import rgb_pixels


class ImageFiles(Protocol):
    """The images at `root`; their `names` are relative to it, with `/`, sorted, without hidden files."""

    @property
    def root(self) -> Path: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def read(self, name: str) -> bytes | None:
        """The bytes of any file in there, image or not; None where there is no such file."""

    def all_names(self) -> list[str]:
        """The sorted names of all files, those that are no images too."""


@dataclass(frozen=True)
class FolderFiles:
    """Images anywhere below a folder, links followed."""

    root: Path
    names: tuple[str, ...]

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def all_names(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())


@dataclass(frozen=True)
class TarFiles:
    """Images in a tar, read in place.

    timm's ReaderImageInTar does not fit: it labels by the last folder alone, so that `train/` and `val/` of
    one tar become one set (and `WNID/images/` one class), refuses compressed tars, and keeps one open file,
    whose position threads and forked workers would share. This index opens the file anew for every read.
    """

    root: Path
    names: tuple[str, ...]
    # (offset, size) of every file; in a compressed tar, where one cannot jump to an offset, its bytes
    members: dict[str, tuple[int, int] | bytes] = field(repr=False)

    def read(self, name: str) -> bytes | None:
        member = self.members.get(name)
        if member is None or isinstance(member, bytes):
            return member
        offset, size = member
        with self.root.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def all_names(self) -> list[str]:
        return sorted(self.members)


@dataclass(frozen=True)
class FileImages:
    """A map-style dataset over named files: uint8 (3, image_px, image_px) each."""

    files: ImageFiles
    names: tuple[str, ...]
    image_px: int

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        name = self.names[index]
        try:
            with Image.open(io.BytesIO(self.files.read(name) or b"")) as image:
                return rgb_pixels(image, self.image_px)
        # Pillow's decoders raise many kinds of errors on broken files; the name is what all of them lack.
        except Exception as error:
            reason = "no image format" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(
                f"cannot read the image {name!r} in {self.files.root} ({reason}): replace or remove it"
            ) from error


def open_image_files(root: Path, *, memory_limit_bytes: int) -> ImageFiles:
    """The image files of a folder or of a tar (.tar, .tar.gz, .tgz and what else tarfile reads); maybe none.

    Raises:
        ValueError: `root` is missing or neither; the tar is broken, or compressed and above the memory limit.
    """
    if root.is_dir():
        found, _ = find_images_and_targets(str(root), types=IMG_EXTENSIONS, sort=False)
        return FolderFiles(root, _image_names(Path(path).relative_to(root).as_posix() for path, _ in found))
    if not root.exists():
        raise ValueError(f"data.root={root} does not exist: type the path of a folder of images or of a tar of one")
    try:
        members = _index_tar(root, memory_limit_bytes)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).partition(":\n")[0]  # without what each kind of compression had to say
        raise ValueError(
            f"data.root={root} is neither a folder nor a tar that can be read ({reason}): "
            "type the path of a folder of images or of a tar of one"
        ) from error
    return TarFiles(root, _image_names(members), members)


def _index_tar(path: Path, memory_limit_bytes: int) -> dict[str, tuple[int, int] | bytes]:
    plain = _is_plain_tar(path)
    if not plain and path.stat().st_size > memory_limit_bytes:
        raise ValueError(
            f"data.root={path} is compressed and larger than the {memory_limit_bytes:,} bytes that may be "
            "kept in memory: decompress it to a .tar, from which images can be read one by one"
        )
    members: dict[str, tuple[int, int] | bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                place = (member.offset_data, member.size) if plain else content.read()
                members[_relative(member.name)] = place
        # tarfile takes a header that is cut off or damaged for the end, which in truth is a block of zeros.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it breaks off after {len(members)} files")
    return members


def _is_plain_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.ReadError:
        return False
    return True


def _relative(member_name: str) -> str:
    return PurePosixPath(member_name.lstrip("/")).as_posix()  # without the "./" that `tar -C FOLDER .` writes


def _image_names(names: Iterable[str]) -> tuple[str, ...]:
    """The images among `names`, sorted, without hidden ones ("._a.png" is a Mac's note about a.png)."""
    return tuple(
        sorted(
            name
            for name in names
            if name.lower().endswith(IMG_EXTENSIONS) and not any(part.startswith(".") for part in name.split("/"))
        )
    )
