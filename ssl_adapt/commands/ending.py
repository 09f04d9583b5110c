"""Exit codes of commands: 2 and one sentence for a mistake of the user, 1 and a traceback for a defect."""

import errno
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

from ssl_adapt.errors import UserError

DUPLICATE_WAIT_SEC = 3.0  # in which a launcher ends the other processes of a run, if the first one failed as well
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PATH_ERRORS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG,
}  # fmt: skip


def run_command(main: Callable[[], None]) -> None:
    """Call `main` and exit with its code: 0; 2 for mistakes that the user can correct; 1 for a defect of the package.

    An error with an attribute `signum`, or Ctrl-C, gives 128 plus the signal's number, as in shells. So does, without a
    message, a closed pipe, as of `head` after its lines. In a run of several processes the first one prints the error;
    the others wait a little for the launcher to end them, and print theirs if it does not.
    """
    try:
        main()
        sys.stdout.flush()  # here, so that a closed pipe is found before Python's own end
    except KeyboardInterrupt:
        _leave("interrupted by Ctrl-C", 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_pipe_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
            _leave("", 128 + signal.SIGPIPE)
        if hasattr(error, "signum"):
            _leave(f"stopped: {error}", 128 + error.signum)
        sentence = user_sentence(error)
        if sentence is not None:
            _leave(f"error: {sentence}", 2)
        if _is_lost_process(error):
            _leave("stopped: another process of the run ended; its message has the reason", 1)
        _leave(
            f"{traceback.format_exc()}this is a defect of ssl_adapt, or of a library it uses: please report it with "
            "the lines above, the command, and recipe.yaml of the run folder",
            1,
        )


def user_sentence(error: Exception) -> str | None:
    """The message of an error that the user can correct, or None for a defect.

    These are `UserError`, a full disk, a path that can't be read or written, and too little memory.
    """
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"{os.strerror(error.errno or 0)}{where}: make room; a run continues with run.resume=auto"
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        return f"{error.strerror} ({str(error.filename)[:200]}): type another path, or change its permissions"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "there is not enough memory: lower data.batch_size, or raise train.accumulate, which takes it in parts"
    return str(error) if isinstance(error, UserError) else None


def _is_pipe_closed() -> bool:
    """Whether standard output is a pipe that nobody reads any more; other pipes may break too, by a defect."""
    try:
        output = select.poll()
        output.register(sys.stdout, 0)  # errors only, which are always reported
        return bool(output.poll(0))
    except (OSError, ValueError):  # standard output is closed, or is no file
        return False


def _is_lost_process(error: Exception) -> bool:
    """`is_lost_process`, which needs torch, imported only if there are other processes."""
    if _process_count() == 1:
        return False
    from ssl_adapt.processes import is_lost_process

    return is_lost_process(error)


def _process_count() -> int:
    """The number of processes, from the launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _leave(text: str, code: int) -> None:
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        time.sleep(DUPLICATE_WAIT_SEC)
    if text:
        print(f"process {rank}: {text}" if rank > 0 else text, file=sys.stderr, flush=True)
    if _process_count() > 1:
        os._exit(code)  # sys.exit would wait for processes that wait for this one
    sys.exit(code)
