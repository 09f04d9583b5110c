"""A lock on a run folder, so that two processes don't write into it by turns.

By hand: filelock 3 opens the file with O_TRUNC, so that whoever is refused erases the name of who holds the lock.
"""

import errno
import os
import platform
import sys
import time
from pathlib import Path
from types import TracebackType

from ssl_adapt.errors import UserError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
MAX_OWNER = 200  # characters that are read of who holds a lock

_held: set[int] = set()  # the descriptors of this process's locks


class FolderLock:
    """A lock that is held until `release`, or until the process ends in whatever way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Let others use the folder; a second call does nothing."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = -1  # the number may be another file's from now on

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_folder(folder: Path, *, other: str = "name another run.dir") -> FolderLock:
    """The lock on a folder, which exists; its file `.lock` says who holds it, and stays there unlocked.

    The lock is `flock`'s: it belongs to this opening of the file, so a second call is refused in the same process
    too, and it ends with the process. Where there is none, nothing is locked and two runs in one folder are not
    noticed: on Windows, and on file systems that refuse it, as some of Lustre and NFS do.

    Args:
        folder: to be locked.
        other: what to do instead of waiting, for the error.

    Raises:
        ValueError: if the folder is in use; the message says by whom.
    """
    nofollow = getattr(os, "O_NOFOLLOW", 0)  # a link in an untrusted folder would have its target overwritten
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | nofollow, 0o666)
    try:
        if sys.platform != "win32":
            _lock(descriptor, folder, other)
        owner = f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n"
        os.ftruncate(descriptor, 0)
        os.write(descriptor, owner.encode())
    except BaseException:
        os.close(descriptor)
        raise
    return FolderLock(descriptor)


def is_locked(folder: Path) -> bool | None:
    """Whether a process holds the lock on a folder; None where that can't be told. Nothing is created."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back as the file is closed
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


if sys.platform != "win32":

    def _lock(descriptor: int, folder: Path, other: str) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, MAX_OWNER).decode(errors="replace").strip()
            if not (owner and owner.isprintable()):
                owner = "another process"
            raise UserError(f"{folder} is in use by {owner}: wait for it, or {other}") from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise

    def _close_inherited() -> None:
        # A worker that outlives a killed run for a moment would keep its lock; closing it here doesn't unlock.
        for descriptor in _held:
            os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=_close_inherited)
