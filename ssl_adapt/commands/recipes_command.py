"""The recipes: `ssl-adapt recipes` lists them, `ssl-adapt recipes NAME` prints one to be copied and changed."""

from collections.abc import Sequence

from pydantic import Field

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.help import describe_options, list_recipes
from ssl_adapt.recipe.keys import did_you_mean
from ssl_adapt.recipe.load import available_recipes
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Text

USAGE = """\
usage: ssl-adapt recipes [NAME]

Without a name lists the recipes, with one prints its file, to be copied and changed:
  ssl-adapt recipes quickstart > mine.yaml
  ssl-adapt pretrain recipe=mine.yaml
"""


class RecipesOptions(Section):
    """Which recipe is printed."""

    recipe: Text | None = Field(default=None, description="recipe to print, as recipe=NAME or NAME; null: list all")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, RecipesOptions)


def read_recipes_arguments(arguments: Sequence[str]) -> RecipesOptions:
    """The options; a single argument without a key is the recipe's name."""
    if len(arguments) == 1 and "=" not in arguments[0]:
        arguments = [f"recipe={arguments[0]}"]
    return read_options(RecipesOptions, arguments)


def run(arguments: Sequence[str]) -> None:
    """List the recipes, or print the one that is asked for."""
    name = read_recipes_arguments(arguments).recipe
    recipes = available_recipes()
    if name is None:
        print(list_recipes(), end="")
    elif name in recipes:
        print(recipes[name].read_text(encoding="utf-8"), end="")
    else:
        raise UserError(f"unknown recipe {name!r}{did_you_mean(name, recipes) or ';'} available: {', '.join(recipes)}")
