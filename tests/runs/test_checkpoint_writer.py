"""Checkpoints written beside the training: as the state was, one at a time, none lost or forgotten."""

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_checkpoints import TEN, TWENTY, is_state, save_two, state_of
from short_runs import assert_same_weights, load_checkpoint, run, status

from ssl_adapt.runs.checkpoint import Checkpoints
from ssl_adapt.runs.checkpoint_writer import CheckpointWriter, copy_to_host

FAST = ["data.train_images=400", "run.checkpoint_every_steps=1"]


class SlowDisk(Checkpoints):
    """Checkpoints that are not written before they are let."""

    let: threading.Event

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        assert self.let.wait(20)
        super().save(step, state)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowDisk]:
    save_two(tmp_path)
    disk = SlowDisk(tmp_path / "checkpoints", keep=2)
    disk.let = threading.Event()
    yield disk
    disk.let.set()


def test_what_is_written_is_the_state_as_it_was(slow: SlowDisk) -> None:
    writer, state = CheckpointWriter(slow, in_background=True), state_of(30)
    writer.save(30, state)
    state["network"]["weight"].zero_()
    state["losses"].append(1.0)
    state["network"]["new"] = torch.ones(1)
    assert slow.names() == [TEN, TWENTY]
    writer.check()  # waits for nothing
    slow.let.set()
    writer.wait()
    loaded = slow.load_newest()
    assert loaded is not None
    assert loaded.step == 30
    assert is_state(loaded.state, 30)
    assert writer.close() is None


def test_the_next_waits_for_the_one_before(slow: SlowDisk) -> None:
    writer = CheckpointWriter(slow, in_background=True)
    writer.save(30, state_of(30))
    threading.Timer(0.2, slow.let.set).start()
    writer.save(40, state_of(40))
    assert (slow.path / "step_000000030").is_dir()
    assert writer.close() is None
    assert slow.names() == ["step_000000030", "step_000000040"]


def tell(writer: CheckpointWriter, told_by: str) -> None:
    """Let a writer say what went wrong; `check`, which waits for nothing, is asked again and again."""
    if told_by == "save":
        writer.save(40, state_of(40))
    elif told_by == "wait":
        writer.wait()
    else:
        for _ in range(1000):
            writer.check()
            time.sleep(0.01)


@pytest.mark.parametrize("told_by", ["save", "check", "wait", "close"])
def test_a_write_that_failed_is_told_of_once_and_loses_nothing(tmp_path: Path, told_by: str) -> None:
    two = save_two(tmp_path)
    in_the_way = two.path / ".partial-step_000000030"
    in_the_way.write_text("a file where the folder must be")
    writer = CheckpointWriter(two, in_background=True)
    writer.save(30, state_of(30))
    if told_by == "close":
        assert isinstance(writer.close(), FileExistsError)
    else:
        with pytest.raises(FileExistsError):
            tell(writer, told_by)
        in_the_way.unlink()
        writer.save(50, state_of(50))
        assert writer.close() is None
    loaded = two.load_newest()
    assert loaded is not None
    assert loaded.step == (20 if told_by == "close" else 50)
    assert is_state(loaded.state, loaded.step)


def test_a_copy_shares_nothing_and_equals_what_it_is_of() -> None:
    conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    value = {"a": [conv.weight, (1, "x", None)], "b": conv.state_dict()}
    copy = copy_to_host(value)
    assert copy["a"][1] == (1, "x", None)
    assert torch.equal(copy["a"][0], conv.weight)
    assert copy["a"][0].stride() == conv.weight.stride()
    assert copy["a"][0].data_ptr() != conv.weight.data_ptr()
    assert not copy["a"][0].requires_grad
    assert list(copy["b"]) == ["weight", "bias"]


def test_a_run_ends_only_when_its_last_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Checkpoints.save

    def late(checkpoints: Checkpoints, step: int, state: Mapping[str, Any]) -> None:
        time.sleep(0.5 if step == 3 else 0)
        assert status(tmp_path / "a")[0] == "running"
        save(checkpoints, step, state)

    monkeypatch.setattr(Checkpoints, "save", late)
    assert run(tmp_path / "a", "data.train_images=400", "run.stop_after_epochs=1") is None
    assert status(tmp_path / "a")[0] == "stopped"
    assert load_checkpoint(tmp_path / "a").step == 3


def test_a_run_whose_disk_is_full_ends_at_once_and_goes_on_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        save = Checkpoints.save

        def full(checkpoints: Checkpoints, step: int, state: Mapping[str, Any]) -> None:
            if step > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            save(checkpoints, step, state)

        patched.setattr(Checkpoints, "save", full)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path / "a", *FAST)
    assert status(tmp_path / "a") == ("failed", "OSError: [Errno 28] No space left on device")
    assert load_checkpoint(tmp_path / "a").step == 2
    run(tmp_path / "a", *FAST, "run.resume=auto")
    run(tmp_path / "b", *FAST, "run.checkpoint_in_background=false")
    assert_same_weights(tmp_path / "a", tmp_path / "b")
