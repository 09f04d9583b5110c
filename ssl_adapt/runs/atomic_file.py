"""Writes files so that after a kill they hold the old content or the new one, never a part."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 so that, whatever happens, `path` holds what it held before, or all of it.

    Raises:
        OSError: if the disk is full, for example; the old text is then unchanged.
    """
    with open_whole(path) as file:
        file.write(text.encode())


@contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """A new file to write to, which takes the place of `path` at the end of the block; an error leaves the old one.

    Raises:
        OSError: if the disk is full, for example.
    """
    partial = path.with_name(f".partial-{path.name}")
    partial.unlink(missing_ok=True)  # left by a kill; also keeps a link from being followed
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the file names in a folder survive a power failure, as `fsync` does for the content of a file."""
    if os.name == "nt":  # folders can't be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems don't do it for folders
            raise
    finally:
        os.close(descriptor)
