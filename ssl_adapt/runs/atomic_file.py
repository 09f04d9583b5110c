"""Writes small files so that after a kill they hold the old text or the new one, never a part."""

import errno
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 so that, whatever happens, `path` holds what it held before, or all of it.

    Raises:
        OSError: if the disk is full, for example; the old text is then unchanged.
    """
    partial = path.with_name(f".partial-{path.name}")
    partial.unlink(missing_ok=True)  # left by a kill; also keeps a link from being followed
    try:
        with partial.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
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
