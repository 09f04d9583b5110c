"""The list of runs: what each row says, what state a run is in, and the command that goes on."""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import short_runs
from script_calls import run_command

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.lock import is_locked, lock_folder
from ssl_adapt.runs.run_list import STATES, list_runs, read_row
from ssl_adapt.runs.short_text import rough_time, short_count, short_time, sparkline

EPOCHS = [
    {"event": "start", "step": 0, "parameters": 5000, "macs": 90000},
    {"event": "epoch", "step": 2, "epoch": 1, "stage": "architecture", "seconds": 2.0},
    {"event": "evaluation", "step": 2, "knn_top1": 0.5, "seconds": 9.0},
    {"event": "fix", "step": 2, "parameters": 4000, "macs": 80000},
    {"event": "epoch", "step": 4, "epoch": 2, "stage": "network", "seconds": 1.5},
]


def write_run(folder: Path, state: str = "running", host: str | None = None, pid: int = 0, **values: Any) -> Path:
    folder.mkdir(parents=True)
    save_recipe(load_recipe("quickstart", {"run.dir": str(folder), **values}), folder / "recipe.yaml")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in EPOCHS))
    status = {"state": state, "reason": None, "host": host or platform.node(), "pid": pid or os.getpid()}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_row_says_what_the_files_say(tmp_path: Path) -> None:
    row = read_row(write_run(tmp_path / "a", "interrupted"), "a")
    assert (row.state, row.stage, row.epoch, row.epochs) == ("interrupted", "network", 2, 5)
    assert (row.score, row.parameters, row.macs, row.seconds) == (0.5, (5000, 4000), (90000, 80000), 3.5)
    assert abs(row.changed - time.time()) < 60
    (tmp_path / "a" / "result.json").write_text('{"accuracy_top1": {"untrained": 0.1, "result": 0.75}}')
    assert read_row(tmp_path / "a", "a").score == 0.75


def test_before_the_first_epoch_and_in_old_runs_less_is_known(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").unlink()
    row = read_row(folder, "a")
    assert (row.stage, row.epoch, row.score, row.parameters, row.seconds) == (None, 0, None, (None, None), 0)
    (folder / "metrics.jsonl").write_text(json.dumps(EPOCHS[3]) + "\n")
    assert read_row(folder, "a").parameters == (None, 4000)


def test_a_run_that_says_it_runs_is_killed_where_no_process_holds_it(tmp_path: Path) -> None:
    free = write_run(tmp_path / "free")
    lock_folder(free).release()
    assert is_locked(free) is False
    assert read_row(free, "free").state == "killed"
    with lock_folder(free):
        assert is_locked(free) is True
        row = read_row(free, "free")
        assert (row.state, row.go_on) == ("running", None)
    without = write_run(tmp_path / "without a lock", pid=gone())
    assert is_locked(without) is None
    assert read_row(without, "b").state == "killed"
    assert read_row(write_run(tmp_path / "at work"), "c").state == "running"
    assert read_row(write_run(tmp_path / "elsewhere", host="far", pid=gone()), "d").state == "running"
    far = write_run(tmp_path / "far", host="far")
    lock_folder(far).release()
    assert read_row(far, "e").reason == "no process is at work in it any more; see that it no longer runs on far"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("recipe.yaml", "name: a\n", "train.epochs is missing"),
        ("status.json", "{", "status.json is not JSON"),
        ("status.json", "{}", "says no state"),
        ("status.json", '{"state": "asleep"}', "the state 'asleep', which this release does not know"),
        ("metrics.jsonl", '{"event": "epoch"\n', "line 1 is no event"),
        ("result.json", "\x00", "result.json is not JSON"),
    ],
)
def test_a_damaged_run_is_a_row_that_says_so(tmp_path: Path, file: str, text: str, said: str) -> None:
    write_run(tmp_path / "a")
    (write_run(tmp_path / "b") / file).write_text(text)
    first, second = list_runs(tmp_path)
    assert first.state in STATES[:-1]
    assert second.state == "damaged"
    assert said in (second.reason or "")


def test_runs_are_found_at_any_depth_and_in_natural_order(tmp_path: Path) -> None:
    for name in ("grid/seed=10", "grid/seed=9", "b", "grid/seed=9/export/inner", ".hidden/c"):
        write_run(tmp_path / name)
    assert [row.name for row in list_runs(tmp_path)] == ["b", "grid/seed=9", "grid/seed=10"]
    assert [row.name for row in list_runs(tmp_path / "b")] == ["b"]
    with pytest.raises(UserError, match="there is no folder"):
        list_runs(tmp_path / "none")


def test_the_command_of_a_row_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    """Also after the folder was moved: the recipe still says where it was made."""
    arguments = ("train.epochs=2", "data.train_images=128", "data.batch_size=64", "knn.k=5")
    short_runs.run(tmp_path / "made here", *arguments, "run.stop_after_epochs=1")
    moved = (tmp_path / "made here").rename(tmp_path / "it's here")
    row = read_row(moved, "a")
    assert (row.state, row.epoch, row.epochs) == ("stopped", 1, 2)
    program, *words = shlex.split(row.go_on or "")
    assert program == "ssl-adapt"
    output = run_command(*words)
    assert output.code == 0, output.err
    row = read_row(moved, "a")
    assert (row.state, row.epoch, row.go_on) == ("finished", 2, None)
    assert [event["step"] for event in short_runs.events(moved, "start")] == [0, 2]


def test_a_run_that_lies_where_it_was_made_needs_a_short_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for values in ({"run.dir": None}, {"run.dir": "runs/quickstart"}):
        row = read_row(write_run(Path("runs/quickstart"), "failed", **values), "a")
        assert row.go_on == "ssl-adapt pretrain recipe=runs/quickstart/recipe.yaml run.resume=auto"
        Path("runs").rename(f"before {len(list(tmp_path.iterdir()))}")


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def some(tmp_path: Path) -> Path:
    for name, state in (("a_seed=1", "finished"), ("a_seed=2", "failed"), ("b_seed=1", "finished")):
        write_run(tmp_path / name, state)
    (tmp_path / "b_seed=1" / "result.json").write_text('{"knn_top1": {"result": 0.9}}')
    (write_run(tmp_path / "c") / "status.json").write_text("{")
    return tmp_path


def listed(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    output = run_command("runs", str(folder), "json=true", *arguments)
    assert output.code == 0, output.err
    rows: list[dict[str, Any]] = json.loads(output.out)
    return rows


def test_the_table_has_a_line_a_run_and_what_goes_on_below(some: Path) -> None:
    output = run_command("runs", str(some))
    assert output.code == 0
    table, *below = output.out.split("\n\n")
    head, *lines = table.splitlines()
    assert head.split() == [
        "run", "state", "stage", "epoch", "score", "parameters", "multiply-adds", "training", "age",
    ]  # fmt: skip
    words = "a_seed=1 finished network 2/5 50.00% 5.00k → 4.00k 90.0k → 80.0k 4 s"
    assert lines[0].split()[:13] == words.split()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["a_seed=2", "failed"],
        ["b_seed=1", "finished"],
        ["c", "damaged"],
    ]
    assert [part.splitlines()[0].partition(":")[0] for part in below] == ["a_seed=2 failed", "c damaged"]
    assert f"recipe={some}/a_seed=2/recipe.yaml run.resume=auto" in below[0]


def test_rows_are_filtered_and_sorted(some: Path) -> None:
    assert [row["name"] for row in listed(some, "name=*seed=1")] == ["a_seed=1", "b_seed=1"]
    assert [row["name"] for row in listed(some, "state=failed")] == ["a_seed=2"]
    assert [row["name"] for row in listed(some, "sort=score")] == ["b_seed=1", "a_seed=1", "a_seed=2", "c"]
    os.utime(some / "a_seed=2" / "metrics.jsonl", (time.time() + 9, time.time() + 9))
    assert listed(some, "sort=age")[0]["name"] == "a_seed=2"
    assert listed(some)[0]["parameters_before"] == 5000
    output = run_command("runs", str(some), "name=x")
    assert (output.code, output.out) == (0, "")
    assert f"no such runs in {some}" in output.err


def test_a_run_that_was_killed_is_listed_as_such(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ssl_adapt.runs.lock import lock_folder\n"
        "lock = lock_folder(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    folder = write_run(tmp_path / "a")
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert listed(tmp_path)[0]["state"] == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert listed(tmp_path)[0]["state"] == "killed"


# --- words ------------------------------------------------------------------------------------------------


def test_short_words() -> None:
    assert [short_count(count) for count in (0, 950, 999.4, 999.6, 82520, 999_600, 3_065_856, 1.2e9)] == [
        "0", "950", "999", "1.00k", "82.5k", "1.00M", "3.07M", "1.20G",
    ]  # fmt: skip
    assert [short_time(seconds) for seconds in (44.2, 200, 7500, 50 * 3600)] == [
        "45 s", "3 min 20 s", "2 h 5 min", "2 d 2 h",
    ]  # fmt: skip
    assert [rough_time(seconds) for seconds in (59.9, 60, 7199, 86400)] == ["59 s", "1 min", "1 h", "1 d"]
    assert sparkline([9, 1, 2, 3], 3) == "▁▅█"
    assert (sparkline([], 3), sparkline([2.0], 3), sparkline([1, 2], 0)) == ("", "▄", "")
