"""Pictures of a run for its trackers: images beside the views that the network sees, and its cells."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from ssl_adapt.data import Batch, ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import DataSection
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.runs.log import RunLog
from ssl_adapt.runs.trackers import log_picture
from ssl_adapt.training.learner import Learner

IMAGES = 8
LEAST_PX = 64  # of an image in the grid: smaller ones are enlarged
DrawCells = Callable[[nn.Module, nn.Module, Path], object]  # a network before and after, into a file


def log_views(log: RunLog, learner: Learner, data: DataSection, train_set: ImageSet) -> None:
    """Show a few images, each in a row with its views, to the trackers; random numbers stay as they were."""
    if not log.accelerator.trackers or not log.accelerator.is_main_process:
        return
    indices = torch.linspace(0, len(train_set) - 1, min(IMAGES, len(train_set))).long()
    images, device = train_set.images(indices), log.accelerator.device
    labels = None if train_set.labels is None else train_set.labels[indices].to(device)
    state = random_state()
    views = learner.views(Batch(images.to(device), labels))
    set_random_state(state)
    rows = [images.float() / 255, *(_as_seen(view, data) for view in views if view.ndim == 4)]
    log_picture(log.accelerator, "views", draw_views(rows), 0)


def draw_views(rows: Sequence[Tensor]) -> Image.Image:
    """A grid with a row for each image and a column for it and each of its views; of (B, 3, px, px) in [0, 1]."""
    tensors = torch.stack([row.cpu() for row in rows], dim=1).flatten(0, 1).clamp(0, 1)
    times = max(1, -(-LEAST_PX // tensors.shape[-1]))
    large = tensors.repeat_interleave(times, 2).repeat_interleave(times, 3)
    picture: Image.Image = to_pil_image(make_grid(large, nrow=len(rows), padding=4, pad_value=1.0))
    return picture


def log_cells(log: RunLog, before: nn.Module, after: nn.Module, step: int, draw: DrawCells | None) -> None:
    """Show the cells before and after a fix to the trackers."""
    if draw is None or not log.accelerator.trackers or not log.accelerator.is_main_process:
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cells.png"
        try:
            draw(before, after, path)
        except UserError as error:
            log.say(f"warning: the trackers get no drawing of the cells: {error}", style="yellow")
            return
        with Image.open(path) as picture:
            log_picture(log.accelerator, "cells", picture, step)


def _as_seen(view: Tensor, data: DataSection) -> Tensor:
    """A view without the normalisation of the network's input."""
    mean, std = (view.new_tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    return view * std + mean
