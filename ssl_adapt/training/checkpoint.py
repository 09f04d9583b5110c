"""Checkpoints: everything a run needs to go on as if it had never stopped."""

import os
from pathlib import Path
from typing import Any

import torch

VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, and containers of them) so that the file is always whole."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"version": VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU; nothing in the file is executed.

    Raises:
        ValueError: if the file is damaged or comes from another version.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); start in another run.dir"
        ) from error
    if state.get("version") != VERSION:
        raise ValueError(f"the checkpoint {path} has version {state.get('version')}; this release reads {VERSION}")
    return state


def random_state() -> dict[str, Any]:
    """The state of torch's generators, from which the views are drawn."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    for device, device_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(device_state, device)
