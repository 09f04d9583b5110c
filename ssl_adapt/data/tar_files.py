"""Image files in a tar, which is never extracted: an index of it, safe for tars from untrusted sources."""

import bz2
import gzip
import lzma
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from ssl_adapt.data.tar_headers import read_plain_headers
from ssl_adapt.errors import UserError

_DECOMPRESSORS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"]\0\0": lzma.open,
}
_REGULAR = tarfile.TarInfo()
_MAX_LINKS = 40  # in a chain, as Linux allows; a longer chain counts as a loop

# (offset, size) of a file, or its bytes where there is no offset: in a compressed tar, or for a sparse file
Place = tuple[int, int] | bytes


@dataclass(frozen=True)
class TarFiles:
    """Images in a tar, read in place.

    timm's ReaderImageInTar does not fit: it takes the last folder alone as the class, so that `train/` and `val/` of
    one tar become one set (and `WNID/images/` one class), refuses compressed tars, and keeps one open file,
    whose position threads and forked workers would share. This index opens the file for every read.
    """

    root: Path
    names: tuple[str, ...]
    left_out: dict[str, str]
    members: dict[str, Place] = field(repr=False)

    def read(self, name: str, *, max_bytes: int) -> bytes | None:
        member = self.members.get(name)
        if member is None or isinstance(member, bytes):
            return member
        offset, size = member
        with self.root.open("rb") as file:
            file.seek(offset)
            return file.read(min(size, max_bytes + 1))

    def all_names(self) -> list[str]:
        return sorted(self.members)


class TarIndex(NamedTuple):
    """The place of each file in a tar, and the reason for each member that cannot be read, by name; no folders.

    `damage` says why the tar could not be read to its end, if it could not.
    """

    members: dict[str, Place]
    left_out: dict[str, str]
    damage: str = ""


class RefusedTarError(Exception):
    """A readable tar is refused; the message is put after the tar's path."""


def index_tar(path: Path, *, memory_limit_bytes: int) -> TarIndex:
    """The index of a whole tar, see `read_tar_index`.

    Raises:
        ValueError: the tar is broken or cut off, holds a name twice, or needs more than `memory_limit_bytes`,
            which is found before that memory is taken; the message says what to do.
    """
    try:
        index = read_tar_index(path, memory_limit_bytes=memory_limit_bytes)
    except RefusedTarError as refusal:
        raise UserError(f"data.root={path} {refusal}") from None
    if index.damage:
        raise UserError(
            f"data.root={path} is neither a folder nor a tar that can be read ({index.damage}): "
            "type the path of a folder of images or of a tar of one"
        )
    return index


def read_tar_index(path: Path, *, memory_limit_bytes: int) -> TarIndex:
    """The index of a tar, plain or compressed by gzip, bzip2 or xz, up to where it is damaged.

    A compressed tar is read into memory. Nothing is written, so no name can reach a file outside the tar: a leading
    `/` is dropped, as tar does, and a name that leaves the tar by `..` is left out. Links are followed to files of
    the tar, and else left out, as devices and pipes are.

    Raises:
        RefusedTarError: the tar holds a name twice, or needs more memory than the limit.
    """
    members: dict[str, Place] = {}
    links: dict[str, str] = {}
    left_out: dict[str, str] = {}
    damage = ""
    try:
        if not path.is_file():
            raise tarfile.ReadError("it is a device or a pipe")
        for name, member, place in _read_members(path, memory_limit_bytes):
            if name in members or name in links:
                raise RefusedTarError(f"holds {name!r} twice: write it again with every file once")
            if name == ".." or name.startswith("../"):
                left_out[name] = "its name leaves the tar"
            elif place is not None:
                members[name] = place
            elif member.issym():
                links[name] = _inside(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                links[name] = _inside(member.linkname)
            elif not member.isdir():
                left_out[name] = "it is a device or a pipe, not a file"
    except RefusedTarError:
        raise
    # A bad header can raise more than tarfile's own errors: for a number out of range, or headers in headers.
    except Exception as error:
        # without the messages of each kind of compression
        damage = " ".join(str(error).partition(":\n")[0].split()) or type(error).__name__
    followed = {name: members[end] for name in links if (end := _end_of_links(name, links)) in members}
    broken = {name: "it is a link to no file in the tar" for name in links if name not in followed}
    return TarIndex(members | followed, left_out | broken, damage)


class _Bounded:
    """A file that raises an error after `limit` bytes.

    tarfile reads as many bytes at once as a header asks for, and a few KB of gzip can give as many gigabytes.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit = file, limit

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> None:
        self._file.seek(min(position, self._limit))
        if position > self._limit:
            self.read(1)

    def read(self, count: int) -> bytes:
        if count < 0:
            raise tarfile.ReadError("a size in it is negative")
        content = self._file.read(min(count, self._limit + 1 - self.tell()))
        if self.tell() > self._limit:
            raise _too_large(self._limit)
        return content


def _too_large(limit_bytes: int) -> RefusedTarError:
    return RefusedTarError(
        f"is compressed or has sparse files and needs more than the {limit_bytes:,} bytes that may be kept in "
        "memory: write it as a plain .tar, from which images can be read one by one"
    )


def _read_members(path: Path, memory_limit_bytes: int) -> Iterator[tuple[str, tarfile.TarInfo, Place | None]]:
    """Name, header and, for a file, place of every member."""
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    # A plain tar begins with a name, which may be BZh.
    found = [opener for magic, opener in _DECOMPRESSORS.items() if head.startswith(magic) and head[257:262] != b"ustar"]
    limit = memory_limit_bytes if found else path.stat().st_size
    if not found and (plain := read_plain_headers(path)) is not None:
        yield from ((_inside(name), _REGULAR, (offset, size)) for name, offset, size in plain)
        return
    kept_bytes, count = 0, 0
    with (
        found[0](path) if found else path.open("rb") as file,
        tarfile.TarFile(fileobj=cast(IO[bytes], _Bounded(file, limit))) as tar,
    ):
        for member in tar:
            # In older versions of Python a negative size leads back to this header, in an endless loop.
            if member.size < 0 or tar.offset <= member.offset:
                raise tarfile.ReadError("a size in it is negative")
            place: Place | None = None
            if member.isreg() and not found and not member.issparse():
                place = (member.offset_data, member.size)
            elif member.isreg():
                kept_bytes += member.size
                if kept_bytes > memory_limit_bytes:
                    raise _too_large(memory_limit_bytes)
                content = tar.extractfile(member)
                assert content is not None, "a regular file has content"
                place = content.read()
            yield _inside(member.name), member, place
            count += 1
            tar.members = []  # type: ignore[attr-defined]  # a header takes 1 KB of memory
        # tarfile takes a truncated or damaged header for the end, which really is a block of zeros.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it breaks off at member {count + 1}")


def _inside(name: str) -> str:
    """The name without the "./" that `tar -C FOLDER .` writes, nor the "/" of an absolute one."""
    return posixpath.normpath(name.lstrip("/"))


def _end_of_links(name: str, links: dict[str, str]) -> str | None:
    for _ in range(_MAX_LINKS):
        if name not in links:
            return name
        name = links[name]
    return None
