"""One row for each objective, of a small network on the embedded digits, for the suites that all of them run."""

from collections.abc import Sequence

import pytest
import torch

from ssl_adapt import load_recipe
from ssl_adapt.data import Batch, ImageSet
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import create_accelerator

SMALL = (
    "data.name=digits", "data.image_px=8", "data.batch_size=128", "model.args={width: 4, layers: [1, 2]}",
    "adapt.epochs=1", "adapt.theta_lr=0.1", "adapt.mode=hard", "adapt.anneal_epochs=0", "train.epochs=2",
    "data.mean=[0.3, 0.3, 0.3]", "data.std=[0.3, 0.3, 0.3]",
)  # fmt: skip
HEADS = ("objective.projector_hidden=32", "objective.projector_out=16")
ROWS: dict[str, Sequence[str]] = {
    "simclr": ("recipe=simclr_resnet20", "knn.k=20", "knn.every_epochs=0", *HEADS),
    "byol": ("recipe=byol_resnet20", "knn.k=20", "knn.every_epochs=0", *HEADS, "objective.predictor_hidden=32"),
    "vicreg": ("recipe=vicreg_resnet20", "knn.k=20", "knn.every_epochs=0", *HEADS),
    "supervised": ("recipe=supervised_resnet20", "views.pad_px=1", "objective.label_smoothing=0.1"),
}
every_objective = pytest.mark.parametrize("name", ROWS)


def arguments(name: str, *more: str) -> list[str]:
    """The row's arguments; what comes later takes the place of what came before."""
    given = {argument.partition("=")[0]: argument for argument in (*ROWS[name], *SMALL, *more)}
    adapts = "adapt=null" not in more
    return [argument for key, argument in given.items() if adapts or not key.startswith("adapt.")]


def create(name: str, digits: ImageSet, *more: str) -> Learner:
    recipe = load_recipe(arguments(name, *more))
    torch.manual_seed(0)
    return create_learner(recipe, create_objective(recipe, digits), create_accelerator(recipe))


def batch_of(digits: ImageSet, count: int = 24) -> Batch:
    indices = torch.arange(count)
    assert digits.labels is not None
    return Batch(digits.images(indices), digits.labels[indices], indices)
