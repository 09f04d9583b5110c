"""What the trackers of a run get: the recipe as flat keys, numbers under one set of names, and pictures.

All are started through accelerate, and write to the disk alone unless the user's own settings say otherwise.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

# The curves of a run: events of one network as it goes on share a prefix; others have their own.
PREFIXES = {
    "step": "train", "epoch": "epoch", "fix": "network", "round": "network", "untrained": "eval",
    "loaded": "eval", "evaluation": "eval", "after_fix": "eval", "result": "eval",
}  # fmt: skip
NO_CURVES = ("start", "weights", "processes", "extended")  # events whose numbers are facts


def start_trackers(accelerator: Accelerator, name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Start the trackers that the accelerator was created with, and give them the recipe.

    Args:
        accelerator: has their names.
        name: of the project: the recipe's.
        folder: of the run, whose name is the run's.
        config: the recipe as nested dicts.
    """
    names = [str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with]
    if not names:
        return
    options: dict[str, dict[str, Any]] = {}
    if "wandb" in names:
        os.environ.setdefault("WANDB_MODE", "offline")
        options["wandb"] = {"name": folder.name, "dir": str(folder)}
    if "mlflow" in names:
        if "MLFLOW_TRACKING_URI" not in os.environ:
            import mlflow

            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which mlflow 3 asks for
            mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow sets it, as if the user had, for a next run too
        options["mlflow"] = {"run_name": folder.name}
    if "trackio" in names:
        options["trackio"] = {"name": folder.name, "resume": "allow", "embed": False}
    accelerator.init_trackers(name, config=flat_config(config), init_kwargs=options)


def flat_config(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """The values by their dotted keys; what is no number, true, false or text is written as text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_config(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else _as_text(value)
    return flat


def tracked_numbers(event: str, values: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers of an event under their names, such as train/loss, time/views_ms, eval/knn_top1 and epoch/seconds."""
    if event in NO_CURVES:
        return {}
    prefix = PREFIXES.get(event, event)
    numbers = {f"{prefix}/{key}": value for key, value in values.items() if _is_number(value)}
    ms = values.get("ms")
    if isinstance(ms, Mapping):
        numbers |= {f"time/{part}_ms": value for part, value in ms.items()}
    return numbers


def log_picture(accelerator: Accelerator, name: str, picture: Image.Image, step: int) -> None:
    """Give a picture to every tracker, as one of that step."""
    if not accelerator.is_main_process:
        return
    for tracker in accelerator.trackers:
        run, pixels = tracker.tracker, np.asarray(picture.convert("RGB"))
        if tracker.name == "tensorboard":
            run.add_image(name, pixels, step, dataformats="HWC")
            run.flush()
        elif tracker.name == "wandb":
            import wandb

            run.log({name: wandb.Image(pixels)}, step=step)
        elif tracker.name == "trackio":
            import trackio

            run.log({name: trackio.Image(pixels)}, step=step)
        elif tracker.name == "mlflow":
            with TemporaryDirectory() as folder:
                path = Path(folder) / f"{name.replace('/', '_')}_step_{step}.png"
                picture.save(path)
                tracker.log_artifact(str(path), "pictures")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_text(value: Any) -> str:
    return "null" if value is None else str(value)
