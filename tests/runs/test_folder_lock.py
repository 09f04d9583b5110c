"""A run folder under a second process, kills and full disks: one process writes, and the old or the new is there."""

import errno
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_checkpoints import TEN, TWENTY, is_state, save_two, state_of

from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.runs.checkpoint import Checkpoints
from ssl_adapt.runs.lock import lock_folder

CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "os.fsync"}
NEVER = 1_000_000
HOLDER = """
import os, sys, time
from pathlib import Path
from ssl_adapt.runs.lock import lock_folder

lock = lock_folder(Path(sys.argv[1]))
if os.fork() == 0:  # the worker, which has closed what it inherited by now
    print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_a_second_lock_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    name = re.escape(f"{tmp_path} is in use by process {os.getpid()} on {platform.node()} since 20")
    with lock_folder(tmp_path) as first:
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"^{name}[\dT:+-]+: wait for it, or name another run.dir$"):
                lock_folder(tmp_path)
    second = lock_folder(tmp_path)
    first.release()  # no longer its own
    with pytest.raises(ValueError, match="is in use"):
        lock_folder(tmp_path)
    second.release()
    second.release()
    lock_folder(tmp_path).release()


@pytest.mark.parametrize("owner", [b"", b"\xff\n\x1b[31m", b"\0" * 10_000])
def test_who_holds_it_may_be_unknown(tmp_path: Path, owner: bytes) -> None:
    with lock_folder(tmp_path):
        (tmp_path / ".lock").write_bytes(owner)
        with pytest.raises(ValueError, match="is in use by another process: wait"):
            lock_folder(tmp_path)


def test_what_can_not_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock_folder(tmp_path / "missing")
    other = tmp_path / "other"
    other.write_text("another's")
    (tmp_path / ".lock").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        lock_folder(tmp_path)
    assert other.read_text() == "another's"


def test_the_lock_of_a_killed_process_is_gone_though_its_worker_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            with pytest.raises(ValueError, match=rf"in use by process {holder.pid} on "):
                lock_folder(tmp_path)
            holder.kill()
            assert holder.wait() == -signal.SIGKILL
            lock_folder(tmp_path).release()
            os.kill(worker, 0)  # it is still there
        finally:
            holder.kill()
            os.kill(worker, signal.SIGKILL)


class Failures:
    """System calls that fail, or end the process: number `at` of those in `CALLS`, and perhaps all that follow too.

    Python's audit hooks see a call before it happens, and stay as long as the process.
    """

    def __init__(self) -> None:
        self.at, self.how = 0, ""
        self.calls: list[tuple[str, str]] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.at == 0 or event not in CALLS:
            return
        self.calls.append((event, Path(str(arguments[0])).name))
        if len(self.calls) == self.at or (self.how == "all fail" and len(self.calls) > self.at):
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    def end(self, task: Callable[[], None], at: int, how: str) -> int:
        """How the task ends: 0, 28 for a full disk, or -9 for killed, which happens in a process of its own."""
        self.at, self.how, self.calls = at, how, []
        try:
            return in_child(task) if how == "kill" else number_of_error(task)
        finally:
            self.at = 0


def number_of_error(task: Callable[[], None]) -> int:
    try:
        task()
    except OSError as error:
        return error.errno or -1
    return 0


def in_child(task: Callable[[], None]) -> int:
    """What `number_of_error` gives in a process of its own, or minus the signal that ended that."""
    process = os.fork()
    if process == 0:
        try:
            os._exit(number_of_error(task))
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture(scope="module")
def hook() -> Failures:
    return Failures()


@pytest.fixture
def failures(hook: Failures, monkeypatch: pytest.MonkeyPatch) -> Failures:
    """Ready to be used; `fsync` does nothing more than to be seen, as no power is cut."""
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: sys.audit("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    return hook


def leave_two_of_a_step(path: Path) -> None:
    """As a kill leaves them between the last renaming and the removal of what was replaced."""
    shutil.copytree(path / TEN, path / f"{TEN}.old")


def leave_a_damaged_one_of_two(path: Path) -> None:
    leave_two_of_a_step(path)
    (path / TEN / "state.pt").write_bytes(b"torn")


def leave_the_old_one(path: Path) -> None:
    """As a kill leaves it between the two renamings."""
    (path / TEN).rename(path / f"{TEN}.old")


def leave_a_partial_one(path: Path) -> None:
    shutil.copytree(path / TEN, path / f".partial-{TWENTY}")


def leave_all(path: Path) -> None:
    """One checkpoint, at step 10."""


SCENES: list[tuple[Callable[[Path], None], int, int, str]] = [
    (leave_two_of_a_step, 10, 1, "kill"),
    (shutil.rmtree, 20, 1, "all fail"),
    *((leave_all, step, keep, how) for step, keep in ((10, 1), (20, 1), (20, 2)) for how in ("fail", "all fail")),
    *((leave, 10, 1, how)
      for leave in (leave_two_of_a_step, leave_a_damaged_one_of_two, leave_the_old_one)
      for how in ("fail", "all fail")),
    *((leave, 20, 1, how) for leave in (leave_the_old_one, leave_a_partial_one) for how in ("fail", "all fail")),
]  # fmt: skip


@pytest.mark.parametrize(("leave", "step", "keep", "how"), SCENES)
def test_a_save_that_ends_at_any_system_call_leaves_the_old_or_the_new(
    tmp_path: Path, failures: Failures, leave: Callable[[Path], None], step: int, keep: int, how: str
) -> None:
    start = Checkpoints(tmp_path / "start", keep=1)
    start.save(10, state_of(1))
    leave(start.path)

    def attempt(at: int, how: str) -> tuple[int, str]:
        """How a save ends, and what is loaded afterwards."""
        checkpoints = Checkpoints(tmp_path / "tried", keep=keep)
        if start.path.exists():
            shutil.copytree(start.path, checkpoints.path)
        code = failures.end(partial(checkpoints.save, step, state_of(2)), at, how)
        loaded = checkpoints.load_newest()
        marks = {1: "old", 2: "new"}
        outcome = marks[loaded.state["mark"]] if loaded else "none"
        assert loaded is None or is_state(loaded.state, loaded.state["mark"])
        checkpoints.save(30, state_of(3))
        assert sorted(os.listdir(checkpoints.path))[-1] == "step_000000030"
        assert len(os.listdir(checkpoints.path)) == len(checkpoints.names()) <= keep
        shutil.rmtree(checkpoints.path)
        return code, outcome

    assert attempt(NEVER, "fail") == (0, "new")
    count = len(failures.calls)
    assert count >= 15
    ends = [attempt(at, how) for at in range(1, count + 1)]
    # What is left over can't always be removed, and is in the way then.
    assert {outcome for _, outcome in ends} == {"old" if start.exist() else "none", "new"}
    assert {code for code, _ in ends} <= ({-signal.SIGKILL} if how == "kill" else {0, errno.ENOSPC, errno.EEXIST})
    assert all(outcome == "new" for code, outcome in ends if code == 0)


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path: Path, failures: Failures) -> None:
    two = save_two(tmp_path)
    assert failures.end(partial(two.save, 30, state_of(30)), NEVER, "fail") == 0
    kinds = {"os.fsync", "os.rename", "os.remove", "os.rmdir"}
    folder = ".partial-step_000000030"
    assert [call for call in failures.calls if call[0] in kinds][:8] == [
        ("os.fsync", "state.pt"),
        ("os.remove", ".partial-manifest.json"),
        ("os.fsync", ".partial-manifest.json"),
        ("os.rename", ".partial-manifest.json"),
        ("os.fsync", folder),
        ("os.rename", folder),
        ("os.fsync", "checkpoints"),
        ("os.remove", "manifest.json"),
    ]


@pytest.mark.parametrize("action", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_disk_that_is_full_at_any_byte_leaves_the_old(tmp_path: Path, action: signal.Handlers) -> None:
    """The system refuses what goes beyond a limit, or ends the process in the midst of writing."""
    two = save_two(tmp_path)
    state = {**state_of(30), "large": torch.zeros(30_000)}  # more than is buffered: torch sees the error too

    def save(limit: int) -> None:
        signal.signal(signal.SIGXFSZ, action)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        two.save(30, state)

    limits = range(0, 120_000, 9_000)
    for limit in limits:
        code = in_child(partial(save, limit))
        assert code == (errno.EFBIG if action == signal.SIG_IGN else -signal.SIGXFSZ)
        assert (f".partial-step_{30:09d}" in os.listdir(two.path)) == (code < 0)
        loaded = two.load_newest()
        assert loaded is not None
        assert is_state(loaded.state, 20)
        assert two.names() == [TEN, TWENTY]
    assert len(limits) >= 13
    assert in_child(partial(save, 130_000)) == 0
    assert sorted(os.listdir(two.path)) == [TWENTY, "step_000000030"]


def test_a_text_is_the_old_or_the_new_one(tmp_path: Path, failures: Failures) -> None:
    path, other = tmp_path / "status.json", tmp_path / "other"
    other.write_text("another's")
    for how in ("fail", "all fail", "kill"):
        texts = []
        for at in range(1, 7):
            write_text(path, "old\n")
            code = failures.end(partial(write_text, path, "néw\r\n"), at, how)
            texts.append(path.read_bytes().decode())
            assert texts[-1] in ("old\n", "néw\r\n")
            assert code in ((-signal.SIGKILL,) if how == "kill" else (errno.ENOSPC,))
        assert set(texts) == {"old\n", "néw\r\n"}
    (tmp_path / ".partial-status.json").symlink_to(other)
    write_text(path, "last")
    assert (path.read_text(), other.read_text()) == ("last", "another's")
    assert sorted(os.listdir(tmp_path)) == ["other", "status.json"]
