"""Runs that are killed at random moments end, once they went on, with the same bytes as the run that never stopped.

`make test-faults` runs this; the table at its end counts kills, resumes and lost steps.
"""

import json
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from run_process import CHECKPOINT_STEPS, RunProcess, damage, result

pytestmark = pytest.mark.faults

STEPS = 100
KINDS = {"SIGKILL": 16, "SIGTERM": 10, "SIGTERM group": 4, "full disk": 8, "torn file": 8, "flipped bit": 8}
TRIALS = [(kind, number) for kind, count in KINDS.items() for number in range(count)]
# The newest checkpoint may still be in the writing when the next one is due; the one before it may be damaged.
MOST_LOST = {"SIGTERM": 0, "SIGTERM group": 0, "torn file": 3 * CHECKPOINT_STEPS, "flipped bit": 3 * CHECKPOINT_STEPS}
LOST: dict[str, list[int]] = defaultdict(list)
WRONG: Counter[str] = Counter()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("reference") / "run"
    run = RunProcess(folder)
    assert run.wait() == 0, run.output.read_text()
    assert run.step == STEPS
    assert set(json.loads((folder / "architecture.json").read_text())["edges"].values()) > {"original"}
    (newest,) = sorted((folder / "checkpoints").glob("step_*/state.pt"))[-1:]
    return {**result(folder), "checkpoint_bytes": newest.stat().st_size}


@pytest.mark.parametrize(("kind", "number"), TRIALS)
def test_a_killed_run_ends_as_if_nothing_had_been(
    tmp_path: Path, reference: dict[str, Any], kind: str, number: int
) -> None:
    generator = random.Random(f"{kind} {number}")
    folder = tmp_path / "run"
    first = 2 * CHECKPOINT_STEPS + 1 if kind in ("torn file", "flipped bit") else 0
    streams = kind == "SIGTERM group"
    run = RunProcess(folder, streams=streams)
    run.wait_for_step(generator.randrange(first, STEPS - CHECKPOINT_STEPS))
    if kind == "full disk":
        run.fill_disk(generator.randrange(200, reference["checkpoint_bytes"] // 2))
        assert run.wait() == 2, run.output.read_text()
    else:
        generator_wait(run, generator)
        if streams:
            run.kill_group(signal.SIGTERM)
        else:
            run.kill(signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
        expected = (
            (-signal.SIGKILL,) if kind == "SIGKILL" or "file" in kind or "bit" in kind else (128 + signal.SIGTERM,)
        )
        assert run.wait() in expected, run.output.read_text()
    reached = max(run.step, 0)
    if kind in ("torn file", "flipped bit"):
        newest = sorted((folder / "checkpoints").glob("step_*"))[-1]
        damage(newest / generator.choice(["state.pt", "manifest.json"]), kind, generator)

    resumed = RunProcess(folder, streams=streams)
    assert resumed.wait() == 0, resumed.output.read_text()
    lost = reached - resumed.first_step
    assert 0 <= lost <= MOST_LOST.get(kind, 2 * CHECKPOINT_STEPS)
    differing = [name for name, value in result(folder).items() if value != reference[name]]
    WRONG[kind] += bool(differing)
    LOST[kind].append(lost)
    assert not differing, f"after {kind} at step {reached}"
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def generator_wait(run: RunProcess, generator: random.Random) -> None:
    """Up to 40 ms, so that the kill also comes within a step, a checkpoint, or an evaluation."""
    run.wait_for_step(STEPS + 1, timeout_sec=0.04 * generator.random())


def test_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    if sum(map(len, LOST.values())) < len(TRIALS):
        pytest.skip("needs all trials above")
    assert len(TRIALS) >= 40
    with capsys.disabled():
        print("\nkind          kills  resumes  lost steps: mean  most  wrong results")
        for kind, lost in LOST.items():
            trials, mean = len(lost), sum(lost) / len(lost)
            print(f"{kind:12}  {trials:5}  {trials:7}  {mean:16.1f}  {max(lost):4}  {WRONG[kind]:13}")
