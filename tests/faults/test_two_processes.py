"""Runs of two processes that are killed, one or both, and go on: the same bytes at the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from run_process import ARGUMENTS, result
from script_calls import SCRIPTS

pytestmark = pytest.mark.faults

PRETRAIN = SCRIPTS / "pretrain.py"
SHORTER = ["train.epochs=3", "adapt.epochs=1", "train.accumulate=2", "data.batch_size=128", "knn.every_epochs=0",
           "run.report=false"]  # fmt: skip
FEWER = [
    *(a for a in ARGUMENTS if not a.startswith(("train.epochs", "adapt.epochs", "data.batch", "knn.every"))),
    *SHORTER,
]
TRIALS = [(kind, number) for kind in ("SIGTERM to all", "SIGKILL to one", "SIGKILL to all") for number in range(2)]


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(PRETRAIN)]
    with (folder.parent / f"{folder.name}.txt").open("ab") as output:
        return subprocess.Popen(
            [*command, *FEWER, f"run.dir={folder}"],
            env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def workers(launcher: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def wait_for_checkpoints(folder: Path, step: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        saved = sorted((folder / "checkpoints").glob("step_*"))
        if saved and int(saved[-1].name.removeprefix("step_")) >= step:
            return
        time.sleep(0.005)
    pytest.fail(f"no checkpoint of step {step} within 120 s")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert start(folder).wait(300) == 0, (folder.parent / "run.txt").read_text()
    found = result(folder)
    assert set(json.loads(found["architecture"])["edges"].values()) > {"original"}
    return found


@pytest.mark.parametrize(("kind", "number"), TRIALS)
def test_killed_in_two_processes(tmp_path: Path, reference: dict[str, Any], kind: str, number: int) -> None:
    generator = random.Random(f"{kind} {number}")
    folder = tmp_path / "run"
    launcher = start(folder)
    wait_for_checkpoints(folder, generator.choice([7, 10, 14, 20, 21]))
    time.sleep(0.1 * generator.random())
    pids = workers(launcher)
    assert len(pids) == 2
    if kind == "SIGTERM to all":
        launcher.send_signal(signal.SIGTERM)
    elif kind == "SIGKILL to one":
        os.kill(pids[generator.randrange(2)], signal.SIGKILL)
    else:
        for pid in (launcher.pid, *pids):
            os.kill(pid, signal.SIGKILL)
    assert launcher.wait(90) != 0
    if kind == "SIGTERM to all":
        assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert start(folder).wait(300) == 0, (tmp_path / "run.txt").read_text()
    differing = [name for name, value in result(folder).items() if value != reference[name]]
    assert not differing
