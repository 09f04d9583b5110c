"""Small files that are whole after any kill: the old text or the new one, never a part."""

import errno
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 so that, whatever happens, `path` holds what it held before, or all of it.

    Raises:
        OSError: if the disk is full, say; the old text is still there then.
    """
    partial = path.with_name(f".partial-{path.name}")
    partial.unlink(missing_ok=True)  # left by a kill; a link put there by somebody else is not followed either
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
    """Make the names in a folder last through a power cut, as `fsync` does for what is in a file."""
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
