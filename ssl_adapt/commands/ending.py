"""How a command ends: what the user can mend is one sentence and exit code 2, all else keeps its traceback."""

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
    """Call `main` and leave Python with its exit code: 0; 2 for what the user can mend; 1 for a defect of ours.

    An error with an attribute `signum`, or Ctrl-C, gives 128 and the signal's number, as shells do; so does, without a
    word, an output whose reader has gone, as `head` goes after its lines. In a run of several processes the first one
    speaks; another waits a little, and then, still there, failed alone.
    """
    try:
        main()
        sys.stdout.flush()  # here, so that a reader who has gone is noticed before Python's own end
    except KeyboardInterrupt:
        _leave("interrupted by Ctrl-C", 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
            _leave("", 128 + signal.SIGPIPE)
        if hasattr(error, "signum"):
            _leave(f"stopped: {error}", 128 + error.signum)
        sentence = user_sentence(error)
        if sentence is not None:
            _leave(f"error: {sentence}", 2)
        if _is_lost_process(error):
            _leave("stopped: another process of the run ended; what it says is the reason", 1)
        _leave(
            f"{traceback.format_exc()}this is a defect of ssl_adapt, or of a library it uses: please report it with "
            "the lines above, the command, and recipe.yaml of the run folder",
            1,
        )


def user_sentence(error: Exception) -> str | None:
    """What to tell the user of an error that they can mend, or None for a defect.

    Such errors are `UserError`, a disk that is full, a path that can't be read or written, and too little memory.
    """
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"{os.strerror(error.errno or 0)}{where}: make room; a run goes on by run.resume=auto"
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        return f"{error.strerror} ({str(error.filename)[:200]}): type another path, or change its permissions"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "there is not enough memory: lower data.batch_size, or raise train.accumulate, which takes it in parts"
    return str(error) if isinstance(error, UserError) else None


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more; other pipes may break too, by a defect."""
    try:
        output = select.poll()
        output.register(sys.stdout, 0)  # no more than errors, which are always told
        return bool(output.poll(0))
    except (OSError, ValueError):  # standard output is closed, or is no file
        return False


def _is_lost_process(error: Exception) -> bool:
    """`is_lost_process`, for which torch is needed, and imported only where there are other processes."""
    if _process_count() == 1:
        return False
    from ssl_adapt.processes import is_lost_process

    return is_lost_process(error)


def _process_count() -> int:
    """As the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _leave(text: str, code: int) -> None:
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        time.sleep(DUPLICATE_WAIT_SEC)
    if text:
        print(f"process {rank}: {text}" if rank > 0 else text, file=sys.stderr, flush=True)
    if _process_count() > 1:
        os._exit(code)  # Python's own end would wait for processes that wait for this one
    sys.exit(code)
