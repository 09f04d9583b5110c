"""The folder of a run: its recipe, metrics, checkpoints, architecture, result, export and status."""

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.processes import is_lost_process, process_index
from ssl_adapt.recipe import Recipe, load_recipe, recipe_text
from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.runs.checkpoint import Checkpoint, Checkpoints
from ssl_adapt.runs.checkpoint_writer import CheckpointWriter
from ssl_adapt.runs.lock import FolderLock, lock_folder
from ssl_adapt.runs.same_recipe import check_same
from ssl_adapt.runs.stop_signal import InterruptedRunError


class RunFolder:
    """The paths and files of a run. Nothing is created before `create`. Without a checkpoint there is no run yet.

    Inside its context the folder is locked for this run. After `create` the state of the run, and at the end
    how it ended, is in `status.json`. Only the main process writes.

    Args:
        recipe: `run.dir`, `run.resume` and, to compare, everything that changes a result.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.path = recipe.run_dir
        self.checkpoints = Checkpoints(self.path / "checkpoints", keep=recipe.run.keep_checkpoints)
        self._writer = CheckpointWriter(self.checkpoints, in_background=recipe.run.checkpoint_in_background)
        self._recipe = recipe
        self._is_main = process_index() == 0
        self._is_created = False
        self._lock: FolderLock | None = None

    def __enter__(self) -> "RunFolder":
        """Lock the folder, if it exists, and check what is in it.

        Raises:
            ValueError: if it holds a run already and `run.resume` is "never", if that run had another recipe, if
                another process is at work in it, or if there is a file in its place.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"run.dir={self.path} is a file: name a folder")
        if self._is_main and self.path.exists():
            self._lock = lock_folder(self.path)
        try:
            self._check()
        except BaseException:
            self._release()
            raise
        return self

    def create(self) -> None:
        """Make and lock the folder, if it is new, and save the recipe in it."""
        if self._is_main:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = lock_folder(self.path)
                if self.checkpoints.exist():
                    raise UserError(f"{self.path} was made by another run while this one began: name another run.dir")
        self._write("recipe.yaml", recipe_text(self._recipe))
        self._is_created = True
        self.save_status("running")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the last checkpoint, say in `status.json` what ended the run, if it was an error, release the lock."""
        failure = self._writer.close()
        if failure is not None and error is not None:
            error.add_note(f"the last checkpoint could not be written either: {failure}")
        error = error or failure
        try:
            if self._is_created and isinstance(error, InterruptedRunError | KeyboardInterrupt):
                self.save_status("interrupted", str(error))
            elif self._is_created and error is not None:
                reason = "another process of the run ended" if is_lost_process(error) else str(error)
                self.save_status("failed", f"{type(error).__name__}: {reason}")
        except OSError:  # such as a full disk, which may have ended the run
            pass
        finally:
            self._release()
        if failure is not None and error is failure:
            raise failure

    @property
    def export(self) -> Path:
        """The folder of the export."""
        return self.path / "export"

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None if there is none.

        Raises:
            ValueError: if all are damaged.
        """
        return self.checkpoints.load_newest()

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; raises the error of the one before it, if that could not be written."""
        if self._is_main:
            self._writer.save(step, state)

    def check_writer(self) -> None:
        """Raise the error of a checkpoint that could not be written, as soon as that is known; waits for nothing."""
        self._writer.check()

    def finish_checkpoint(self) -> None:
        """Wait for a checkpoint that is being written; raises the error if it can't be."""
        self._writer.wait()

    def save_architecture(self, text: str) -> None:
        """Write `architecture.json`."""
        self._write("architecture.json", text)

    def save_result(self, result: dict[str, Any]) -> None:
        """Write `result.json`."""
        self._write("result.json", json.dumps(result, indent=2) + "\n")

    def save_status(self, state: str, reason: str | None = None) -> None:
        """Write `status.json`: running, finished, stopped, interrupted or failed, and why."""
        status = {
            "state": state,
            "reason": reason,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": platform.node(),
            "pid": os.getpid(),
            "versions": {"ssl_adapt": version("ssl-adapt"), "torch": version("torch")},
        }
        self._write("status.json", json.dumps(status, indent=2) + "\n")

    def save_bad_images(self, reasons: Mapping[str, str]) -> None:
        """Write `bad_images.json`: the images that could not be read, by name, and why."""
        self._write("bad_images.json", json.dumps(reasons, indent=2) + "\n")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _check(self) -> None:
        if not self.checkpoints.exist():
            left = [name for name in ("result.json", "export", "checkpoint.pt") if (self.path / name).exists()]
            if left:
                raise UserError(
                    f"{self.path} holds {left[0]} of a run but no checkpoint to resume from: "
                    "type another run.dir=FOLDER, or remove that one"
                )
            return
        resume = self._recipe.run.resume
        if resume == "never":
            raise UserError(
                f"{self.path} holds a run already: type run.resume=auto to continue it, or another run.dir=FOLDER"
            )
        try:
            before = load_recipe([f"recipe={self._recipe_path}"])
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{self._recipe_path} is no longer the recipe of a run ({reason}): start in another run.dir"
            ) from None
        epochs, old_epochs = self._recipe.train.epochs, before.train.epochs
        if resume == "extend" and epochs > old_epochs:
            if self._recipe.train.max_steps is not None:
                raise UserError("run.resume=extend and train.max_steps don't go together: type train.max_steps=null")
            before = before.model_copy(update={"train": before.train.model_copy(update={"epochs": epochs})})
        check_same(before, self._recipe, old_epochs)

    def _write(self, name: str, text: str) -> None:
        if self._is_main:
            write_text(self.path / name, text)

    @property
    def _recipe_path(self) -> Path:
        return self.path / "recipe.yaml"
