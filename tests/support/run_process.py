"""A run in a process of its own, which can be killed; how far it was stays known."""

import functools
import json
import multiprocessing
import os
import random
import resource
import sys
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from short_runs import timeless

ARGUMENTS = [
    "recipe=debug", "data.image_px=8", "data.batch_size=64", "model.name=resnet50_cifar",
    "model.args={width: 4, layers: [1, 2], shortcut: B}", "knn.every_epochs=2", "train.epochs=5", "adapt.epochs=2",
    "adapt.mode=anneal", "adapt.anneal_epochs=1", "adapt.theta_lr=0.1", "adapt.shape_change=project",
    "run.checkpoint_every_steps=7", "run.keep_checkpoints=3", "run.resume=auto",
]  # fmt: skip
CHECKPOINT_STEPS = 7
# Torch and the package are imported once, in a server from which every run is forked.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ssl_adapt.training.loop"])


class RunProcess:
    """A run that goes on in `folder`; `step` is the last one that it did, -1 before the first.

    What it prints is added to a file beside its folder, `output`.

    Args:
        folder: the run folder.
        streams: let two workers decode the images, as of a set that does not fit into memory.
    """

    def __init__(self, folder: Path, *, streams: bool = False) -> None:
        self.output = folder.parent / f"{folder.name}.txt"
        self._step = CONTEXT.Value("q", -1)
        self._first = CONTEXT.Value("q", -1)
        self._process = CONTEXT.Process(target=_run, args=(folder, self.output, self._step, self._first, streams))
        self._process.start()

    @property
    def step(self) -> int:
        """The last step that was done."""
        return self._step.value

    @property
    def first_step(self) -> int:
        """The number of steps done when the run took up its work."""
        return self._first.value

    def wait_for_step(self, step: int, timeout_sec: float = 60.0) -> None:
        """Wait until that step is done or the run has ended."""
        end = time.monotonic() + timeout_sec
        while self.step < step and self._process.is_alive() and time.monotonic() < end:
            time.sleep(0.0005)

    def kill(self, number: int) -> None:
        """Send a signal, if the run has not ended."""
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def kill_group(self, number: int) -> None:
        """Send a signal to the run and its workers, as a launcher does, if the run has not ended."""
        if self._process.is_alive():
            assert self._process.pid is not None
            os.killpg(self._process.pid, number)

    def fill_disk(self, most_bytes: int) -> None:
        """From now on none of its files can grow beyond so many bytes, and writing fails as on a full disk."""
        if self._process.is_alive():
            assert self._process.pid is not None
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

    def wait(self) -> int:
        """The exit code; that of a killed process is the negative number of the signal."""
        self._process.join(120)
        assert self._process.exitcode is not None, "the run hangs"
        return self._process.exitcode


def _run(folder: Path, output: Path, step: "Synchronized[int]", first: "Synchronized[int]", streams: bool) -> None:
    import torch

    from ssl_adapt.commands.ending import run_command
    from ssl_adapt.recipe import load_recipe
    from ssl_adapt.training.loop import pretrain
    from ssl_adapt.training.progress import Progress

    os.setsid()
    torch.set_num_threads(1)
    if streams:
        setting = sys.modules["ssl_adapt.training.setting"]
        setting.load_image_splits = functools.partial(setting.load_image_splits, memory_limit_bytes=0)  # type: ignore[attr-defined]
    count = Progress.count

    def count_and_tell(progress: Progress, loss: float | None) -> None:
        if first.value < 0:
            first.value = progress.step
        count(progress, loss)
        step.value = progress.step

    Progress.count = count_and_tell  # type: ignore[method-assign]
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def main() -> None:
        pretrain(load_recipe([*ARGUMENTS, f"run.dir={folder}"]))

    run_command(main)


def damage(path: Path, kind: str, generator: random.Random) -> None:
    """Tear a file, or flip a bit of one of its bytes."""
    content = bytearray(path.read_bytes())
    if kind == "torn":
        del content[generator.randrange(len(content)) :]
    else:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def result(folder: Path) -> dict[str, Any]:
    """All that a run leaves which may not depend on its having been stopped."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": (folder / "export" / "model.safetensors").read_bytes(),
        "architecture": (folder / "architecture.json").read_text(),
        "result": json.loads((folder / "result.json").read_text()),
        "metrics": [timeless(line) for line in lines if line["event"] != "start"],
    }
