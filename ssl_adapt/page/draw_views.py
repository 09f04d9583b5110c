"""Views of a run's training images, drawn as in training."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_adapt.data import Batch, epoch_order
from ssl_adapt.runs.run_record import RunRecord
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import load_splits

IMAGES = 8
VIEWS = 4  # of each image


class DrawnViews(NamedTuple):
    """Images uint8 (N, 3, H, W), the class of each or "", and their views, uint8 (N, 3, H, W) each."""

    images: Tensor
    classes: list[str]
    views: list[Tensor]


def draw_views(run: RunRecord) -> DrawnViews:
    """Views of a few training images as the run's objective draws them, the same at each call.

    Torch's global random state is left as it was.

    Raises:
        ValueError: the images can't be read; the message says what to do.
    """
    recipe = run.recipe
    train = load_splits(recipe.data, in_memory=False).train
    chosen = epoch_order(len(train), seed=0, epoch=0)[:IMAGES]
    images = train.images(chosen)
    labels = None if train.labels is None else train.labels[chosen]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        # adapt=None: edges make no difference to the views
        objective = create_objective(recipe.model_copy(update={"adapt": None}), train, on_meta=True)
        views: list[Tensor] = []
        while len(views) < VIEWS:
            drawn = objective.views(Batch(images, labels))
            views += [view for view in drawn if view.ndim == 4]  # targets may be among them
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (recipe.data.mean, recipe.data.std))
    pixels = [((view * std + mean) * 255).round().clamp(0, 255).to(torch.uint8) for view in views]
    names = [""] * len(images) if labels is None else [train.classes[label] for label in labels.tolist()]
    return DrawnViews(images, names, pixels)
