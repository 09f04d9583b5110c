"""Recipes: one flat YAML file for each experiment, read strictly into frozen models.

The schema alone defines the type, the range and the meaning of a key; help and errors are made from it. Only the
commands and the training loop read a recipe: everything below takes plain arguments.
"""

from ssl_adapt.recipe.adapt import AdaptSection
from ssl_adapt.recipe.help import describe_recipes
from ssl_adapt.recipe.load import available_recipes, load_recipe, recipe_text, save_recipe
from ssl_adapt.recipe.objective_sections import ObjectiveSection, SimclrSection, SupervisedSection
from ssl_adapt.recipe.schema import DataSection, KnnSection, ModelSection, Recipe, RunSection
from ssl_adapt.recipe.train import TrainSection
from ssl_adapt.recipe.view_sections import PaddedCropSection, ResizedCropSection, ViewSection

__all__ = [
    "AdaptSection",
    "DataSection",
    "KnnSection",
    "ModelSection",
    "ObjectiveSection",
    "PaddedCropSection",
    "Recipe",
    "ResizedCropSection",
    "RunSection",
    "SimclrSection",
    "SupervisedSection",
    "TrainSection",
    "ViewSection",
    "available_recipes",
    "describe_recipes",
    "load_recipe",
    "recipe_text",
    "save_recipe",
]
