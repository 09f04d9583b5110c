"""A search of NAT that is killed again and again ends with the files of one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from script_calls import SCRIPTS

pytestmark = pytest.mark.faults

SEARCH = [
    "recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "views.pad_px=1", "model.name=resnet20_nat",
    "epochs=4", "channels=2", "cells=3", "batch_size=32", "transforms=3",
]  # fmt: skip


def start(folder: Path) -> subprocess.Popen[bytes]:
    files = [f"genotype={folder / 'found.json'}", f"json={folder / 'log.json'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(SCRIPTS / "nat_search.py"), *SEARCH, *files], env=environment)


def found(folder: Path) -> dict[str, object]:
    log = json.loads((folder / "log.json").read_text())
    for timed in (log, *log["history"]):
        timed.pop("seconds")
    return {"log": log, "genotype": (folder / "found.json").read_text()}


def test_a_killed_search_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert start(whole).wait() == 0
    for number in range(3):
        search, seen = start(killed), set(killed.glob("found.json.search/step_*"))
        while search.poll() is None and set(killed.glob("found.json.search/step_*")) <= seen:
            time.sleep(0.02)
        time.sleep(0.3 * number)
        search.kill()
        assert search.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert start(killed).wait() == 0
    assert found(killed) == found(whole)
