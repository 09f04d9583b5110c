"""The environment of timings: versions, threads and hardware."""

import platform
from importlib.metadata import PackageNotFoundError, version

import faiss
import torch

from ssl_adapt.training.start_event import cpu_model

LIBRARIES = ("torchvision", "kornia", "timm", "lightly")


def describe_environment(device: torch.device) -> dict[str, str]:
    """Name -> version or description, for the head of the tables and for the JSON."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the build, cpu or CUDA
        **{name: _version(name) for name in LIBRARIES},
        "faiss": str(faiss.__version__),  # its distribution is faiss-gpu or faiss-cpu
        "threads": f"torch {torch.get_num_threads()}, faiss {faiss.omp_get_max_threads()}",
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "not used",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
