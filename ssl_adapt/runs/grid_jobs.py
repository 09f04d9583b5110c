"""The jobs of a grid: how submitit starts them on this machine or on Slurm, and how they are stopped."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.runs.grid_plan import LaunchOptions
from ssl_adapt.runs.stop_signal import StopSignal

POLL_SEC = 0.2
SAVE_SEC = 180  # before its time limit, in which a run on Slurm saves a checkpoint
MAX_TIMEOUTS = 100  # after which Slurm no longer restarts a run; submitit needs a number
_YEARS_MIN = 10 * 365 * 24 * 60  # submitit's limit for local jobs is 2 minutes unless another is given
_SLURM_NAMES = {"time_min": "timeout_min", "gpus": "gpus_per_node", "cpus": "cpus_per_task", "mem_gb": "mem_gb"}


class InterruptedGridError(Exception):
    """The grid got a stop signal, and passed it on to its runs.

    Attributes:
        signum: the signal, whose number gives the exit code.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(
            f"{signal.Signals(signum).name} came, and was passed on to the runs: the same command again continues them"
        )


class RunJob:
    """One run as submitit calls it: a process of its own, which gets SIGTERM, to save a checkpoint, when the job ends.

    Not submitit's CommandFunction, which keeps the whole output in memory and passes no signal on.

    Args:
        command: what to start.
        log: the file to which its output is added.
        processes: of the run; without a GPU, accelerate needs a variable to connect them.

    Attributes:
        devices: value of CUDA_VISIBLE_DEVICES; None leaves it unchanged.
    """

    def __init__(self, command: Sequence[str], log: Path, processes: int) -> None:
        self.devices: str | None = None
        self.processes = processes
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._is_told = False

    def __call__(self) -> None:
        """Start the run and wait for it.

        Raises:
            RuntimeError: if its exit code is not 0.
        """
        environment = dict(os.environ)
        if self.devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices
        if self.processes > 1:
            import torch  # here, as a single process needs no torch in its parent

            if self.devices == "" or not torch.cuda.is_available():
                environment["ACCELERATE_USE_CPU"] = "1"
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                self._command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        signal.signal(signal.SIGTERM, lambda *_: self._terminate())  # submitit's own handler passes nothing on
        code = self._process.wait()
        if code:
            raise RuntimeError(f"exit code {code}: {self._log} says why")

    def checkpoint(self) -> Any:
        """The job that submitit queues again, after the run has saved: the same, as run.resume=auto resumes."""
        from submitit.helpers import DelayedSubmission

        self._terminate()
        if self._process is not None:
            # Not wait(): submitit calls this from a signal handler, which may have interrupted that.
            with suppress(ChildProcessError):  # it has ended already
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        again = RunJob(self._command, self._log, self.processes)
        again.devices = self.devices
        return DelayedSubmission(again)

    def _terminate(self) -> None:
        """Send SIGTERM once: a second one would end the run before it has saved."""
        if self._process is not None and not self._is_told:
            self._is_told = True
            self._process.terminate()


def run_jobs(executor: Any, runs: Mapping[str, RunJob], launch: LaunchOptions, submitted: dict[str, Any]) -> None:
    """Submit the runs and wait: on Slurm all at once, here each when another ends; fills `submitted` with the jobs.

    Raises:
        InterruptedGridError: after SIGTERM or Ctrl-C, which the jobs got; those on this machine have ended.
    """
    is_local = launch.executor == "local"
    waiting, lanes = list(runs), dict.fromkeys(range(launch.jobs), "")
    with StopSignal() as stop:
        if not is_local:
            with executor.batch():
                submitted.update({name: executor.submit(run) for name, run in runs.items()})
            waiting = []
        while waiting or not all(job.done() for job in submitted.values()):
            for lane, name in lanes.items():
                if waiting and (not name or submitted[name].done()):
                    lanes[lane] = waiting.pop(0)
                    submitted[lanes[lane]] = _submit_here(executor, runs[lanes[lane]], lane)
            time.sleep(POLL_SEC)
            if stop.came():
                _stop(submitted, is_local)
                raise InterruptedGridError(stop.number)


def _submit_here(executor: Any, run: RunJob, lane: int) -> Any:
    """The submitted job, which ignores the terminal's Ctrl-C: the grid passes that on, so that it comes once."""
    run.devices = _devices(lane, run.processes)  # submitit would hide all GPUs
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return executor.submit(run)
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(jobs: Mapping[str, Any], is_local: bool) -> None:
    """Stop the jobs, and wait for those on this machine."""
    running = [job for job in jobs.values() if not job.done()]
    for job in running:
        if is_local:
            os.kill(int(job.job_id), signal.SIGTERM)  # submitit's cancel() kills after a second, saved or not
        else:
            job.cancel(check=False)
    while is_local and not all(job.done() for job in running):
        time.sleep(POLL_SEC)


def create_executor(folder: Path, launch: LaunchOptions) -> Any:
    """submitit's executor; its files go into `folder`.

    Raises:
        ValueError: if submitit is not installed, or Slurm is not found.
    """
    if find_spec("submitit") is None:
        raise UserError("grids need submitit: pip install submitit")
    import cloudpickle  # type: ignore[import-untyped]
    import submitit

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # or a job would import this package to wait for a run
    if launch.executor == "local":
        executor = submitit.AutoExecutor(folder, cluster="local")
        executor.update_parameters(timeout_min=_YEARS_MIN)
        return executor
    if shutil.which("srun") is None or shutil.which("sbatch") is None:
        raise UserError("executor=slurm: srun and sbatch were not found; start it on a machine of the cluster")
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(
        name=folder.parent.name,
        tasks_per_node=1,
        slurm_array_parallelism=launch.jobs,
        slurm_signal_delay_s=SAVE_SEC,
        slurm_additional_parameters={"requeue": True},
        **{
            _SLURM_NAMES.get(name, f"slurm_{name}"): value
            for name, value in launch.slurm.model_dump(exclude_none=True).items()
        },
    )
    return executor


def _devices(lane: int, processes: int) -> str:
    """The GPUs of the runs of one lane, as CUDA_VISIBLE_DEVICES; lanes share them where there are too few."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    first = lane * processes
    return ",".join(visible[(first + index) % len(visible)] for index in range(min(processes, len(visible))))
