"""What a run runs on: the event `start` of `metrics.jsonl`."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ssl_adapt.processes import gather_objects, process_count
from ssl_adapt.runs.log import RunLog

LIBRARIES = ("ssl-adapt", "torch", "timm", "kornia")
_CHECKOUT = Path(__file__).resolve().parents[2]


def log_start(log: RunLog, step: int, cost: tuple[int, int]) -> None:
    """Record when, where and with what the run starts, or goes on.

    Args:
        log: of the run.
        step: steps done.
        cost: parameters and multiply-adds of the network as the run begins, or goes on.

    Distributed: collective: each process names its GPU.
    """
    log.record(
        "start", step=step, time=time.strftime("%Y-%m-%dT%H:%M:%S%z"), host=platform.node(),
        **describe_hardware(log.accelerator), versions=describe_versions(),
        commit=find_commit(_CHECKOUT) if log.accelerator.is_main_process else None,
        parameters=cost[0], macs=cost[1],
    )  # fmt: skip


def describe_hardware(accelerator: Accelerator) -> dict[str, Any]:
    """CPU, cores that the process may use, GPU of each process, processes, device and precision, for the log.

    Distributed: collective.
    """
    device = accelerator.device
    gpus = gather_objects(torch.cuda.get_device_name(device) if device.type == "cuda" else None)
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [name for name in gpus if name is not None],
        "processes": process_count(),
        "device": device.type,
        "precision": "bfloat16" if accelerator.mixed_precision == "bf16" else "float32",
    }


def describe_versions() -> dict[str, str]:
    """Of Python, this package and those that it trains with."""
    return {"python": platform.python_version(), **{name.replace("-", "_"): version(name) for name in LIBRARIES}}


def cpu_model() -> str:
    """The name of the CPU, or its kind where the system does not tell the name."""
    info = Path("/proc/cpuinfo")  # Linux; platform.processor() says little there
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def find_commit(folder: Path) -> str | None:
    """The commit of a checkout, with "-dirty" after it where files differ from it; None for any other folder."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
