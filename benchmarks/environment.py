"""The environment of timings: versions, threads and hardware."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import faiss
import torch

LIBRARIES = ("torchvision", "kornia", "timm", "lightly")


def describe_environment(device: torch.device) -> dict[str, str]:
    """Name -> version or description, for the head of the tables and for the JSON."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the build, cpu or CUDA
        **{name: _version(name) for name in LIBRARIES},
        "faiss": str(faiss.__version__),  # its distribution is faiss-gpu or faiss-cpu
        "threads": f"torch {torch.get_num_threads()}, faiss {faiss.omp_get_max_threads()}",
        "cpu": _cpu_model(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "not used",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")  # Linux; platform.processor() says little there
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
