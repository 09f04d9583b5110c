"""What the recipe in a run's folder says of its evaluation."""

from dataclasses import replace

from ssl_adapt.data import Columns
from ssl_adapt.evaluation.frozen_network import find_run_recipe
from ssl_adapt.evaluation.subject import RunDefaults
from ssl_adapt.recipe import load_recipe
from ssl_adapt.training.measurements import create_protocol


def run_defaults(model: str) -> RunDefaults | None:
    """The images and the protocol of the run where `model` is the folder of one, else None.

    Raises:
        ValueError: if there is a recipe that can't be read.
    """
    path = find_run_recipe(model)
    if path is None:
        return None
    recipe = load_recipe([f"recipe={path}"])
    data, knn = recipe.data, recipe.knn
    protocol = replace(create_protocol(knn), layer="backbone") if knn else None  # an export holds no projector
    columns = Columns(data.image_column, data.label_column)
    return RunDefaults(data.name, data.root, data.workers, data.train_images, protocol, data.labelled_share, columns)
