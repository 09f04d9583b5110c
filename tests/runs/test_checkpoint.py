"""Checkpoints survive kills, full disks and damage: the newest whole one is loaded, and damaged ones are named."""

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_checkpoints import TEN, TWENTY, is_state, save_two, seal, state_of

from ssl_adapt.runs.checkpoint import VERSION, Checkpoints, random_state


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    return save_two(tmp_path)


def reason_of(two: Checkpoints) -> str:
    """Why the newest is passed over; the one before it is loaded, as it was saved."""
    loaded = two.load_newest()
    assert loaded is not None
    assert loaded.step == 10
    assert is_state(loaded.state, 10)
    assert len(loaded.damaged) == 1
    name, _, reason = loaded.damaged[0].partition(": ")
    assert name == TWENTY
    return reason


def test_what_is_saved_is_loaded_and_the_last_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new" / "checkpoints", keep=2)
    assert not checkpoints.exist()
    assert checkpoints.load_newest() is None
    assert list(tmp_path.iterdir()) == []
    for step in (5, 1_234, 999_999_999, 1_000_000_000):
        checkpoints.save(step, {**state_of(step), "random": random_state()})
        loaded = checkpoints.load_newest()
        assert loaded is not None
        assert (loaded.step, loaded.damaged) == (step, ())
        assert torch.equal(loaded.state.pop("random")["cpu"], torch.get_rng_state())
        assert is_state(loaded.state, step)
        assert checkpoints.exist()
    assert checkpoints.names() == ["step_999999999", "step_1000000000"]
    folders = sorted(path.name for path in checkpoints.path.iterdir())
    assert folders == sorted(checkpoints.names())
    assert sorted(os.listdir(checkpoints.path / folders[0])) == ["manifest.json", "state.pt"]
    (tmp_path / "b" / ".partial-step_000000001").mkdir(parents=True)
    assert not Checkpoints(tmp_path / "b", keep=1).exist()


def test_one_of_the_same_step_is_replaced(two: Checkpoints) -> None:
    for mark in (21, 22):
        two.save(20, state_of(mark))
        loaded = two.load_newest()
        assert loaded is not None
        assert is_state(loaded.state, mark)
        assert sorted(os.listdir(two.path)) == [TEN, TWENTY]


def test_only_whole_ones_count_as_kept(two: Checkpoints) -> None:
    (two.path / TWENTY / "state.pt").write_bytes(b"torn")
    two.save(15, state_of(15))  # a run that went on from step 10
    assert two.names() == [TEN, "step_000000015"]


def test_a_torn_or_longer_file_is_named_and_the_one_before_is_used(two: Checkpoints) -> None:
    seen = 0
    for name, step in (("state.pt", 50), ("manifest.json", 20)):
        path = two.path / TWENTY / name
        content = path.read_bytes()
        lengths = [*range(0, len(content), step), len(content) - 1]
        for damaged in (*(content[:length] for length in lengths), content + b"\0", content + content):
            path.write_bytes(damaged)
            reason = reason_of(two)
            assert reason.startswith(name)
            if name == "state.pt":
                assert reason == f"state.pt has {len(damaged):,} bytes of {len(content):,}"
            seen += 1
        path.write_bytes(content)
    assert seen > 60
    loaded = two.load_newest()
    assert loaded is not None
    assert loaded.step == 20


def test_a_flipped_bit_is_named_and_the_one_before_is_used(two: Checkpoints) -> None:
    draw = random.Random(0)
    seen = 0
    for name in ("state.pt", "manifest.json"):
        path = two.path / TWENTY / name
        content = path.read_bytes()
        for position in draw.sample(range(len(content)), 200):
            flipped = bytearray(content)
            flipped[position] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            reason = reason_of(two)
            assert reason.startswith("state.pt: its checksum differs" if name == "state.pt" else name)
            seen += 1
        path.write_bytes(content)
    assert seen == 400


def replace_by(kind: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        path = folder / "manifest.json"
        path.unlink()
        path.mkdir() if kind == "folder" else os.mkfifo(path)

    return replace


FILE = {"bytes": 1, "sha256": "0"}
DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    (lambda folder: (folder / "state.pt").unlink(), "no state.pt"),
    (replace_by("folder"), "manifest.json is not a regular file"),
    (replace_by("pipe"), "manifest.json is not a regular file"),
    (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "manifest.json is not text in UTF-8"),
    (lambda folder: (folder / "manifest.json").write_text("[" * 5_000), "manifest.json is nested more than"),
    (lambda folder: (folder / "manifest.json").write_text(" " * 65_537), "manifest.json is larger than 0.0625 MiB"),
    (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json lacks a key"),
    (lambda folder: seal(folder, step=10), "manifest.json is of step 10"),
    (lambda folder: seal(folder, step="20"), "manifest.json lacks a key, or has a value of another kind"),
    *((lambda folder, key=key: seal(folder, **{key: None}), "manifest.json lacks a key") for key in
      ("version", "step", "torch", "files")),
    (lambda folder: seal(folder, files={}), "manifest.json lacks a key"),
    (lambda folder: seal(folder, files={"state.pt": 1}), "manifest.json names 'state.pt', which is no file of a"),
    *((lambda folder, name=name: seal(folder, files={name: FILE, "state.pt": FILE}), f"manifest.json names {name!r}")
      for name in ("../state.pt", "/etc/passwd", "a\\b", "..", "", "x\n")),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_what_is_wrong_is_said(two: Checkpoints, damage: Callable[[Path], object], reason: str) -> None:
    damage(two.path / TWENTY)
    assert reason_of(two).startswith(reason)


def test_the_errors_where_none_can_be_used(two: Checkpoints) -> None:
    seal(two.path / TWENTY, version=VERSION + 1)
    with pytest.raises(ValueError, match=rf"{TWENTY} has the format {VERSION + 1}, and this release reads {VERSION}: "):
        two.load_newest()
    for name in (TEN, TWENTY):
        (two.path / name / "state.pt").write_bytes(b"abc")
    with pytest.raises(ValueError, match=rf"is whole \({TWENTY}: state.pt has 3 bytes of [\d,]+\): start in another"):
        two.load_newest()
    assert two.exist()


class Code:
    """Pickled, it makes a folder where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_is_neither_saved_nor_run(two: Checkpoints, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(
        ValueError, match=r"^step 30 can't be saved, state.pt is refused: it holds code, \w+.mkdir: give "
    ):
        two.save(30, {"a": Code(made)})
    assert sorted(os.listdir(two.path)) == [TEN, TWENTY]
    path = two.path / TWENTY / "state.pt"
    for content, reason in ((Code(made), "is refused: it holds code, "), ([1], "holds a list, not a dict")):
        torch.save(content, path)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        seal(path.parent, files={"state.pt": {"bytes": path.stat().st_size, "sha256": checksum}})
        assert reason_of(two).startswith(f"state.pt {reason}")
    assert not made.exists()
    torch.save(Code(made), path)
    torch.load(path, weights_only=False)  # so the test would have seen it
    assert made.exists()
