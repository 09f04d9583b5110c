"""What a run records of its time: the parts of logged steps, evaluations, and what it ran on."""

import json
import subprocess
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from short_runs import events, run

from ssl_adapt.runs.log import RunLog
from ssl_adapt.training.start_event import find_commit
from ssl_adapt.training.step_timer import StepTimer


def test_logged_steps_say_what_their_parts_took_and_how_theta_moves(tmp_path: Path) -> None:
    run(tmp_path / "a", "train.max_steps=8", "run.log_every_steps=2", "adapt.theta_batch=same")
    [fix] = events(tmp_path / "a", "fix")
    lines = events(tmp_path / "a", "step")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    moving = [line["step"] <= fix["step"] for line in lines]
    assert sorted(set(moving)) == [False, True]
    for line, moves in zip(lines, moving, strict=True):
        assert line["ms"].keys() == {"data", "views", "weights", *(["theta"] if moves else [])}
        assert all(value > 0 for value in line["ms"].values())
        assert ("theta_lr" in line) == moves
    assert lines[0]["theta_lr"] > 0


def test_a_part_is_the_time_inside_it_and_other_steps_have_none() -> None:
    timer = StepTimer(torch.device("cpu"), 2)
    seen = []
    for _ in timer.batches(iter("abcd"), 4):  # type: ignore[arg-type]
        with timer.part("views"):
            time.sleep(0.02)
        seen.append((timer.is_on, dict(timer.ms)))
    assert [is_on for is_on, _ in seen] == [False, True, False, True]
    assert seen[0][1] == seen[2][1] == {}
    assert 20 <= seen[1][1]["views"] < 1000
    assert seen[1][1]["data"] < 20


def test_a_run_says_what_it_runs_on_each_time_that_it_starts(tmp_path: Path) -> None:
    arguments = (
        "train.epochs=2",
        "adapt.theta_lr=0.5",
        "data.train_images=128",
        "data.batch_size=64",
        "knn.every_epochs=1",
        "knn.k=5",
    )
    run(tmp_path / "a", *arguments, "run.stop_after_epochs=1")
    run(tmp_path / "a", *arguments, "run.resume=auto")
    first, again = events(tmp_path / "a", "start")
    assert (first["step"], again["step"]) == (0, 2)
    assert (first["device"], first["precision"], first["processes"], first["gpus"]) == ("cpu", "float32", 1, [])
    assert first["versions"].keys() == {"python", "ssl_adapt", "torch", "timm", "kornia"}
    assert first["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert len(first["cpu"]) > 3
    assert first["cores"] >= 1
    assert (first["parameters"], first["macs"]) == (again["parameters"], again["macs"])
    assert first["parameters"] > json.loads((tmp_path / "a" / "result.json").read_text())["parameters"]
    epochs = [event["evaluation_seconds"] for event in events(tmp_path / "a", "epoch")]
    untrained, evaluation = (events(tmp_path / "a", name)[0]["seconds"] for name in ("untrained", "evaluation"))
    assert 0 < untrained < epochs[0]
    assert epochs[1] > epochs[0] + evaluation, "what was evaluated before the stop counts"


def test_evaluations_are_timed_and_their_time_survives_a_stop(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Accelerator(cpu=True), "a", {})
    with log.evaluating():
        time.sleep(0.02)
    again = RunLog(tmp_path, log.accelerator, "a", {}, log.state_dict())
    assert again.evaluation_seconds == log.evaluation_seconds >= 0.02


@pytest.mark.parametrize("is_changed", [False, True])
def test_the_commit_of_a_checkout_says_whether_files_differ(tmp_path: Path, is_changed: bool) -> None:
    assert find_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a").write_text("one")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    if is_changed:
        (tmp_path / "a").write_text("two")
    assert find_commit(tmp_path) == head + "-dirty" * is_changed
