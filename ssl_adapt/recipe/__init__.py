"""Recipes: one flat YAML file an experiment, read strictly into frozen models.

The schema is the one place where a key has its type, its range and its meaning; the help and the errors are
read off it. Only the scripts and the training loop read a recipe: everything below takes plain arguments.
"""

from ssl_adapt.recipe.adapt import AdaptSection
from ssl_adapt.recipe.help import describe_recipes
from ssl_adapt.recipe.load import available_recipes, load_recipe, recipe_text, save_recipe
from ssl_adapt.recipe.objective import AugmentSection, ObjectiveSection, ViewsSection
from ssl_adapt.recipe.schema import DataSection, KnnSection, ModelSection, Recipe, RunSection, TrainSection

__all__ = [
    "AdaptSection",
    "AugmentSection",
    "DataSection",
    "KnnSection",
    "ModelSection",
    "ObjectiveSection",
    "Recipe",
    "RunSection",
    "TrainSection",
    "ViewsSection",
    "available_recipes",
    "describe_recipes",
    "load_recipe",
    "recipe_text",
    "save_recipe",
]
