"""Checkpoints of a run: written so that a kill leaves none incomplete, checked when read."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_json, read_text, shown
from ssl_adapt.runs.atomic_file import sync_folder, write_text

VERSION = 2
STATE = "state.pt"
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**10
PARTIAL = ".partial-"
_FOLDER = re.compile(r"step_([0-9]{9,})(\.old)?")
_FILE = re.compile(r"\w[\w.-]*", re.ASCII)  # no separator and no .., so nothing outside of the folder


class Checkpoint(NamedTuple):
    """The state that a run resumes from.

    Attributes:
        step: steps done.
        state: what `Checkpoints.save` was given, on the CPU.
        damaged: newer checkpoints that were skipped, each with the reason.
    """

    step: int
    state: dict[str, Any]
    damaged: tuple[str, ...]


class Checkpoints:
    """The last checkpoints of a run, newest last, each a folder with its content and a manifest of checksums.

    A checkpoint is written beside the others and renamed when all of it is on the disk. One of the same step is
    first renamed to `step_N.old`, which counts as a checkpoint until the new one has its name. So the newest
    undamaged folder is always the one that was saved last, or the one before.

    Args:
        path: their folder; it is created by the first `save`.
        keep: how many are kept, at least 1.
        other: what to do instead, for errors about checkpoints that can't be used.
    """

    def __init__(self, path: Path, *, keep: int, other: str = "start in another run.dir") -> None:
        self.path = path
        self.keep = keep
        self.other = other

    def exist(self) -> bool:
        """Whether there are any, damaged ones included."""
        return bool(self._folders())

    def names(self) -> list[str]:
        """The names of their folders, oldest first, damaged ones included."""
        return [folder.name for folder in self._folders()]

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Add a checkpoint, then remove all but the newest whole ones.

        Args:
            step: steps done.
            state: tensors, numbers, text, and containers of them.

        Raises:
            OSError: if the disk is full, for example; the earlier checkpoints are unchanged.
            ValueError: if `state` has values that could not be loaded; the same.
        """
        target = self.path / f"step_{step:09d}"
        partial = self.path / f"{PARTIAL}{target.name}"
        if not self.path.is_dir():
            self.path.mkdir(parents=True)
            sync_folder(self.path.parent)
        for stale in self.path.glob(f"{PARTIAL}*"):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            _write(partial, step, state)
            self._make_room(target)
            os.replace(partial, target)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self.path)
        self._prune(target)

    def load_newest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; None if there are no checkpoints.

        No code in it is executed, and its checksum is checked before it is loaded.

        Raises:
            ValueError: if all are damaged, or if the newest undamaged one has the format of another release.
        """
        damaged: list[str] = []
        for folder in reversed(self._folders()):
            try:
                version = _check(folder)
                if version == VERSION:
                    return Checkpoint(_step(folder), _load_state(folder, "cpu"), tuple(damaged))
            except (ValueError, OSError) as error:
                damaged.append(f"{folder.name}: {_reason(error)}")
                continue
            raise UserError(
                f"{folder} has the format {version}, and this release reads {VERSION}: continue with the release that "
                f"wrote it, or {self.other}"
            )
        if damaged:
            raise UserError(f"no checkpoint in {self.path} is whole ({damaged[0]}): {self.other}")
        return None

    def _folders(self) -> list[Path]:
        """Oldest first; of one step, the one to be replaced is before the one in place."""
        if not self.path.is_dir():
            return []
        folders = [path for path in self.path.iterdir() if _FOLDER.fullmatch(path.name)]
        return sorted(folders, key=lambda folder: (_step(folder), folder.suffix != ".old"))

    def _make_room(self, target: Path) -> None:
        """Rename a checkpoint of the same step; if a kill has left two, first remove the damaged or older one."""
        old = target.with_name(f"{target.name}.old")
        if target.exists() and old.exists():
            shutil.rmtree(old if _is_whole(target) else target)
        if target.exists():
            os.replace(target, old)

    def _prune(self, saved: Path) -> None:
        """Remove all but `saved` and the newest other whole ones; what can't be removed is tried again next time."""
        kept = {_step(saved)}
        for folder in reversed(self._folders()):
            if folder == saved:
                continue
            if len(kept) < self.keep and _step(folder) not in kept and _is_whole(folder):
                kept.add(_step(folder))
            else:
                shutil.rmtree(folder, ignore_errors=True)


class _HashedFile:
    """A file that hashes what is written to it, and keeps the error of a failed write.

    The checksum is of the data that was given, not of what the disk stored. The error is kept because torch replaces
    its file's OSError by a RuntimeError about positions.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Make the folder of a checkpoint; the manifest comes last."""
    folder.mkdir()
    with (folder / STATE).open("wb") as file:
        hashed = _HashedFile(file)
        try:
            torch.save(dict(state), cast(IO[bytes], hashed))
        except RuntimeError as error:
            raise hashed.error or error from None
        file.flush()
        os.fsync(file.fileno())
    try:
        _load_state(folder, "meta")  # as on resume, but without memory for the numbers
    except ValueError as error:
        raise UserError(f"step {step} can't be saved, {error}: give tensors, numbers, text, dicts and lists") from None
    files = {STATE: {"bytes": hashed.bytes, "sha256": hashed.sha256.hexdigest()}}
    manifest = {"version": VERSION, "step": step, "torch": torch.__version__, "files": files}
    write_text(folder / MANIFEST, _manifest_text(manifest))


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest with a checksum of its own, as text; equal manifests give the same bytes."""
    checksum = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": checksum}, indent=2) + "\n"


def _check(folder: Path) -> int:
    """Check the files of a checkpoint; returns its version.

    Raises:
        ValueError: the first thing that is wrong, in words.
        OSError: if a file can't be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"no {MANIFEST}")
    text = read_text(path, MANIFEST, MAX_MANIFEST_BYTES)
    match read_json(text, MANIFEST):
        case {
            "version": int(version),
            "step": int(step),
            "torch": str(),
            "files": {"state.pt": _},
            "sha256": str(_),
        } as manifest:
            pass
        case _:
            raise UserError(f"{MANIFEST} lacks a key, or has a value of another kind")
    if text != _manifest_text({key: value for key, value in manifest.items() if key != "sha256"}):
        raise UserError(f"{MANIFEST}: its own checksum differs")
    if step != _step(folder):
        raise UserError(f"{MANIFEST} is of step {shown(step)}")
    for name, file in manifest["files"].items():
        match file:
            case {"bytes": int(size), "sha256": str(checksum)} if _FILE.fullmatch(name):
                _check_file(folder / name, size, checksum)
            case _:
                raise UserError(f"{MANIFEST} names {shown(name)}, which is no file of a checkpoint")
    return version


def _check_file(path: Path, size: int, checksum: str) -> None:
    if not path.is_file():
        raise UserError(f"no {path.name}")
    found = path.stat().st_size
    if found != size:
        raise UserError(f"{path.name} has {found:,} bytes of {size:,}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
            raise UserError(f"{path.name}: its checksum differs")


def _load_state(folder: Path, device: str) -> dict[str, Any]:
    """The state of a checked checkpoint, with its tensors on the device.

    Raises:
        ValueError: if it holds more than plain data, or is not a dict.
        OSError: if it can't be read.
    """
    try:
        state = torch.load(folder / STATE, map_location=device, weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # torch raises many kinds of errors for damaged files
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"is refused: it holds code, {name[1]}" if name else f"can't be loaded ({type(error).__name__})"
        raise UserError(f"{STATE} {reason}") from None
    if not isinstance(state, dict):
        raise UserError(f"{STATE} holds a {type(state).__name__}, not a dict")
    return state


def _is_whole(folder: Path) -> bool:
    try:
        _check(folder)
    except (ValueError, OSError):
        return False
    return True


def _reason(error: Exception) -> str:
    return f"can't be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def _step(folder: Path) -> int:
    return int(folder.name.removesuffix(".old").removeprefix("step_"))


def random_state() -> dict[str, Any]:
    """The state of torch's generators, from which the views are drawn."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    for device, device_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(device_state, device)
