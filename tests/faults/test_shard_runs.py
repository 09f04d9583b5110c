"""A run on WebDataset shards, in two processes with a decoding worker each, killed in the middle of an epoch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from run_process import ARGUMENTS, result
from script_calls import SCRIPTS
from shard_files import write_shards

pytestmark = pytest.mark.faults

STEPS_PER_EPOCH = 12
# A set of 200 images is decoded into memory, so that the program below lowers the limit first.
PROGRAM = f"""
import functools, runpy, sys
from ssl_adapt.training import setting
setting.load_image_splits = functools.partial(setting.load_image_splits, memory_limit_bytes=0)
sys.argv[0] = {str(SCRIPTS / "pretrain.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SHORTER = ["data.name=webdataset", "data.workers=1", "data.batch_size=16", "train.epochs=3", "adapt.epochs=1",
           "knn.every_epochs=0", "knn.k=2", "model.name=resnet20", "model.args={width: 4, layers: [1, 1]}",
           "run.report=false"]  # fmt: skip


def start(folder: Path) -> "subprocess.Popen[bytes]":
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    keys = {argument.partition("=")[0] for argument in SHORTER}
    arguments = [argument for argument in ARGUMENTS if argument.partition("=")[0] not in keys]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(program)]
    with (folder.parent / f"{folder.name}.txt").open("ab") as output:
        return subprocess.Popen(
            [*command, *arguments, *SHORTER, f"run.dir={folder}", f"data.root={folder.parents[1]}/shards/{{0..2}}.tar"],
            env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shard_runs")
    write_shards(folder / "shards", {"0.tar": 80, "1.tar": 60, "2.tar": 60})
    (folder / "whole").mkdir()
    run = folder / "whole" / "run"
    assert start(run).wait(300) == 0, (folder / "whole/run.txt").read_text()
    return folder, result(run)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_within_an_epoch_of_shards(reference: tuple[Path, dict[str, Any]], number: int) -> None:
    place = reference[0] / str(int(number))
    place.mkdir()
    launcher, end = start(place / "run"), time.monotonic() + 200
    saved = place / "run" / "checkpoints" / "step_000000014"
    while not saved.exists() and time.monotonic() < end:
        time.sleep(0.005)
    assert 14 % STEPS_PER_EPOCH, "the checkpoint is from within an epoch"
    if number == signal.SIGKILL:
        os.killpg(launcher.pid, number)
    else:
        launcher.send_signal(number)
    assert launcher.wait(90) != 0
    assert not (place / "run" / "export").exists(), "it ended before it was killed"
    assert start(place / "run").wait(300) == 0, (place / "run.txt").read_text()
    assert "going on after step" in (place / "run.txt").read_text()
    assert [name for name, value in result(place / "run").items() if value != reference[1][name]] == []
