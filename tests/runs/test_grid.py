"""scripts/grid.py: every combination is one ordinary run; and the files in recipes/launch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from hypothesis import given
from hypothesis import strategies as st
from script_calls import SCRIPTS, run_script

from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.grid_jobs import RunJob
from ssl_adapt.runs.grid_plan import plan_grid, split_values

LAUNCH = SCRIPTS.parent / "recipes" / "launch"
PLAIN = st.text("ab 1.:=-\\", max_size=6)
PIECES = st.recursive(
    PLAIN | st.text("a,[{}]b", max_size=6).map(lambda text: f"'{text}'") | st.just('"a,b]"'),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | inner.map(lambda item: f"{{width: {item}, depth: 2}}")
    ),
    max_leaves=5,
)


@given(st.lists(PIECES, min_size=1, max_size=5))
def test_commas_in_brackets_and_quotes_part_nothing(pieces):
    assert split_values(",".join(pieces)) == pieces


@given(st.text("a,[]{}'\"", max_size=20))
def test_no_character_is_lost(text):
    assert ",".join(split_values(text)) == text


def test_every_combination_is_a_run(tmp_path):
    grid = plan_grid(["recipe=debug,simclr_resnet20", "seed=1,2", "data.batch_size=32", f"folder={tmp_path / 'g'}"])
    assert [run.name for run in grid.runs] == [
        "debug-seed=1", "debug-seed=2", "simclr_resnet20-seed=1", "simclr_resnet20-seed=2",
    ]  # fmt: skip
    for run, seed in zip(grid.runs, (1, 2, 1, 2), strict=True):
        recipe = load_recipe(run.arguments)
        assert (recipe.run_dir, recipe.run.resume) == (tmp_path / "g" / run.name, "auto")
        assert (recipe.seed, recipe.data.batch_size) == (seed, 32)
    assert not (tmp_path / "g").exists()


def test_names_are_those_of_files_and_differ():
    runs = plan_grid(["recipe=debug", "model.args={width: 8},{width: 16},{width: 8, layers: [1, 2]}"]).runs
    names = [run.name for run in runs]
    assert len(set(names)) == 3
    assert all(name.startswith("debug-model.args=_width_") and set(name).isdisjoint(" /{}[]:,") for name in names)
    long = plan_grid(["recipe=debug", f"data.root={'a' * 300},{'a' * 301}"]).runs
    assert len({run.name for run in long}) == 2
    assert all(len(run.name) < 200 for run in long)


ERRORS = [
    (["recipe=debug", "seed"], "argument 'seed' has no '='"),
    (["recipe=debug", "seed=1", "seed=2"], "'seed' is given twice: separate its values by commas, as in seed=0,1"),
    (["recipe=debug", "seed=1,2,1"], "'seed=1,2,1' has a value twice"),
    (["recipe=debug", "seed=1,x"], "seed: got 'x', expected integer from 0"),
    (["recipe=debug,debgu", "seed=1"], "unknown recipe 'debgu'; did you mean 'debug'?"),
    (["seed=1,2"], "no recipe given: add recipe=NAME"),
    (["recipe=debug", "run.dir=here"], "run.dir is set for each run of a grid: leave it out; folder=FOLDER"),
    (["recipe=debug", "run.resume=never"], "run.resume is set for each run"),
    (["recipe=debug", "jobs=0"], "jobs: got 0, expected integer >= 1"),
    (["recipe=debug", "executor=lokal"], "executor: got 'lokal', expected local | slurm; did you mean 'local'?"),
    (["recipe=debug", "slurm.partion=gpu"], "unknown key 'slurm.partion'; did you mean 'slurm.partition'?"),
    (["recipe=debug", "train.epochs=1,2", "adapt.epochs=2"], "adapt.epochs=2 does not fit into train.epochs=1"),
    (["recipe=debug", "executor=slurm"], "executor=slurm: srun and sbatch were not found"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    output = run_script(*arguments, script="grid.py")
    assert output.code == 2
    assert output.err.startswith(f"error: {message}")
    assert output.err.count("\n") == 1, "the same problem of several runs is said once"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_another_run_is_not_taken_for_a_finished_one(tmp_path):
    folder = tmp_path / "debug-seed=1"
    folder.mkdir()
    save_recipe(load_recipe(["recipe=debug", "seed=1", "train.lr=0.1"]), folder / "recipe.yaml")
    (folder / "status.json").write_text('{"state": "finished"}')
    arguments = ["recipe=debug", "seed=1,2", f"folder={tmp_path}", "dry_run=true"]
    output = run_script(*arguments, script="grid.py")
    assert output.code == 2
    assert "was started with other values: train.lr (0.1, now 0.002)" in output.err
    skipped = run_script(*arguments, "train.lr=0.1", script="grid.py")
    assert skipped.code == 0
    assert skipped.out.startswith(
        f"2 runs in {tmp_path}, 1 to do\ndebug-seed=2: recipe=debug seed=2 train.lr=0.1 run.dir"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"debug-seed=1"}


SAVES_ITSELF = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGUSR2])
def test_a_job_tells_its_run_once_and_waits_until_it_is_saved(tmp_path, way):
    """SIGTERM as from kill and scancel; SIGUSR2 as submitit handles it before the time is over: by checkpoint()."""
    ready, log = tmp_path / "ready", tmp_path / "log"
    job = RunJob([sys.executable, "-c", SAVES_ITSELF, str(ready)], log, processes=1)
    queued = []

    def send() -> None:
        while not ready.exists() or signal.getsignal(signal.SIGTERM) is term_before:
            time.sleep(0.05)
        os.kill(os.getpid(), way)

    term_before = signal.getsignal(signal.SIGTERM)
    user_before = signal.signal(signal.SIGUSR2, lambda *_: queued.append(job.checkpoint()))
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(RuntimeError, match="exit code 143"):
            job()
        job.checkpoint()
    finally:
        signal.signal(signal.SIGTERM, term_before)
        signal.signal(signal.SIGUSR2, user_before)
        sender.join()
    assert log.read_text() == "saved\n"
    assert [type(submission.function) for submission in queued] == ([RunJob] if way == signal.SIGUSR2 else [])


@pytest.mark.parametrize("name", ["one_machine", "several_machines"])
def test_accelerate_reads_its_config_files(name):
    config = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    assert config.distributed_type.value == "MULTI_GPU"
    assert config.num_machines == (2 if name == "several_machines" else 1)
    assert config.mixed_precision == "no"


def write_programs(folder: Path, **texts: str) -> dict[str, str]:
    """An environment whose PATH begins with these shell scripts."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("state", "requeued"), [("interrupted", True), ("failed", False)])
def test_the_batch_script_starts_each_machine_and_queues_an_interrupted_run_again(tmp_path, state, requeued):
    environment = write_programs(
        tmp_path / "bin",
        srun=f"""shift; SLURM_NODEID=1 "$@"; echo '{{"state": "{state}"}}' > {tmp_path}/status.json; exit 143""",
        scontrol="""[[ $1 == show ]] && printf 'node7\\nnode8\\n' || echo "$@" """,
        accelerate='echo "$@"',
    )
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "node[7-8]"}
    output = subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", "recipe=debug", f"run.dir={tmp_path}"],
        env={**environment, **slurm, "SLURM_JOB_ID": "12"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert output.returncode == 143, output.stderr
    assert output.stdout.splitlines() == [
        "launch --num_machines 2 --num_processes 8 --machine_rank 1 --main_process_ip node7 --main_process_port 20012 "
        "--mixed_precision no --dynamo_backend no --multi_gpu "
        f"-m ssl_adapt pretrain recipe=debug run.dir={tmp_path} run.resume=auto",
        *(["requeue 12"] if requeued else []),
    ]


def call(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "grid.py"), "recipe=debug", "knn.every_epochs=0", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def states(folder: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["state"] for path in folder.glob("*/status.json")}


@pytest.mark.slow
def test_two_seeds_here_and_on_after_one_was_removed(tmp_path):
    arguments = ("seed=1,2", "train.max_steps=2", "jobs=2", f"folder={tmp_path}")
    first = call(*arguments)
    assert first.returncode == 0, first.stderr
    finished = {"debug-seed=1": "finished", "debug-seed=2": "finished"}
    assert states(tmp_path) == finished
    rows = [line.split() for line in first.stdout.splitlines() if line.startswith("debug")]
    assert [row[:3] for row in rows] == [["debug-seed=1", "finished", "2"], ["debug-seed=2", "finished", "2"]]
    result = json.loads((tmp_path / "debug-seed=1" / "result.json").read_text())
    assert rows[0][3:] == ["knn", f"{result['knn_top1']['result']:.2%}"]

    kept = (tmp_path / "debug-seed=2" / "status.json").read_bytes()
    (tmp_path / "debug-seed=1" / "status.json").unlink()
    second = call(*arguments)
    assert second.stdout.startswith(f"2 runs in {tmp_path}, 1 to do\n")
    assert states(tmp_path) == finished
    assert (tmp_path / "debug-seed=2" / "status.json").read_bytes() == kept


@pytest.mark.slow
def test_runs_that_fail_are_named_and_the_others_finish(tmp_path):
    output = call("data.batch_size=32,2000", "train.max_steps=2", f"folder={tmp_path}")
    assert output.returncode == 2
    failed = tmp_path / "debug-data.batch_size=2000"
    assert f"error: 1 of 2 runs failed: {failed} (error: data.batch_size=2000 is more than the 1297" in output.stderr
    assert states(tmp_path) == {"debug-data.batch_size=32": "finished"}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_saves_the_runs_and_the_same_command_goes_on(tmp_path, processes):
    arguments = ["recipe=debug", "seed=1", "train.epochs=6", "adapt.epochs=4", "run.checkpoint_every_epochs=100"]
    command = [sys.executable, str(SCRIPTS / "grid.py"), *arguments, f"processes={processes}", f"folder={tmp_path}"]
    grid = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "debug" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and '"epoch"' in metrics.read_text()):
        assert time.monotonic() < deadline
        assert grid.poll() is None
        time.sleep(0.1)
    os.killpg(grid.pid, signal.SIGINT)  # as a terminal does, to all that it started
    error = grid.communicate(timeout=240)[1]
    assert grid.returncode == 130
    assert error == "stopped: SIGINT came, and was passed on to the runs: the same command again continues them\n"
    assert states(tmp_path) == {"debug": "interrupted"}
    assert [path.name for path in (tmp_path / "debug" / "checkpoints").iterdir()] != []
    assert subprocess.run(command, check=False).returncode == 0
    assert states(tmp_path) == {"debug": "finished"}
    assert "going on after step" in (tmp_path / "logs" / "debug.log").read_text()


@pytest.mark.slow
def test_slurm_gets_an_array_of_jobs(tmp_path):
    """Against stand-ins for Slurm's programs that start the jobs here; not run on a cluster."""
    environment = write_programs(
        tmp_path / "bin",
        sbatch=f"""cp "$1" {tmp_path}/batch
            for i in 0 1; do
                SLURM_JOB_ID=7$i SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i bash "$1" > /dev/null 2>&1 &
            done
            echo Submitted batch job 7""",
        srun="""while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] || shift; shift; done; "$@" """,
        sacct="echo 'JobID|State|NodeList'",
    )
    slurm = ("executor=slurm", "jobs=2", "slurm.partition=gpu", "slurm.time_min=30", "slurm.mem_gb=8")
    output = call("seed=1,2", "train.max_steps=2", f"folder={tmp_path / 'grid'}", *slurm, env=environment)
    assert output.returncode == 0, output.stderr
    assert states(tmp_path / "grid") == {"debug-seed=1": "finished", "debug-seed=2": "finished"}
    flags = {line.removeprefix("#SBATCH --") for line in (tmp_path / "batch").read_text().splitlines()}
    expected = {"array=0-1%2", "requeue", "signal=USR2@180", "partition=gpu", "time=30", "mem=8GB", "job-name=grid"}
    assert expected <= flags
