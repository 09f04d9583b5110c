"""The runs of a grid, each an ordinary run, started by submitit on this machine or on Slurm."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_adapt.errors import UserError
from ssl_adapt.runs.grid_jobs import RunJob, create_executor, run_jobs
from ssl_adapt.runs.grid_plan import Grid, GridRun, read_json_file


def run_grid(grid: Grid, console: Console) -> None:
    """Start the runs that have not finished, wait for them and print the state of all.

    Raises:
        ValueError: if a run fails, naming its folder; or if submitit or Slurm is missing.
        InterruptedGridError: after SIGTERM or Ctrl-C, which was passed on to the runs, so that they save checkpoints.
    """
    waiting = [run for run in grid.runs if run.state != "finished"]
    console.print(f"{len(grid.runs):,} runs in {grid.folder}, {len(waiting):,} to do", markup=False, soft_wrap=True)
    if grid.launch.dry_run:
        for run in waiting:
            console.print(f"{run.name}: {' '.join(run.arguments)}", markup=False, soft_wrap=True)
        return
    jobs: dict[str, Any] = {}
    executor = create_executor(grid.folder / "submitit", grid.launch)
    try:
        if waiting:
            (grid.folder / "logs").mkdir(parents=True, exist_ok=True)
            run_jobs(executor, {run.name: _create_job(grid, run) for run in waiting}, grid.launch, jobs)
    finally:
        console.print(_table(grid.runs))
    failed = [run for run in waiting if jobs[run.name].exception() is not None]
    if failed:
        reasons = "; ".join(f"{run.path} ({_last_error(_log(grid, run))})" for run in failed)
        raise UserError(
            f"{len(failed)} of {len(grid.runs)} runs failed: {reasons}: their output is in {grid.folder / 'logs'}, "
            "and the same command again continues them"
        )


def _create_job(grid: Grid, run: GridRun) -> RunJob:
    command, processes = [sys.executable], grid.launch.processes
    if processes > 1:  # as accelerate launch does, which without a GPU starts only one process
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return RunJob([*command, "-m", "ssl_adapt", run.command, *run.arguments], _log(grid, run), processes)


def _table(runs: Sequence[GridRun]) -> Table:
    table = Table(header_style="dim", box=None, pad_edge=False)
    for index, column in enumerate(("run", "state", "step", "top-1")):
        table.add_column(column, justify="left" if index < 2 else "right", overflow="fold")
    for run in runs:
        result = read_json_file(run.path / "result.json") if run.state == "finished" else {}
        key = next((key for key in result if key.endswith("_top1")), "")
        top1 = result[key].get("result") if key else None
        score = "" if top1 is None else f"{key.removesuffix('_top1')} {top1:.2%}"
        table.add_row(escape(run.name), run.state, f"{result['steps']:,}" if result else "", score)
    return table


def _log(grid: Grid, run: GridRun) -> Path:
    return grid.folder / "logs" / f"{run.name}.log"


def _last_error(path: Path) -> str:
    """The last error in the log, or else its last line: a launcher prints more after a run's own error."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("error: ")), (lines or ["it did not start"])[-1])
