"""The text of --help, made from the recipes and the models of the keys."""

from __future__ import annotations

import textwrap
from pathlib import Path

from pydantic import BaseModel

from ssl_adapt.recipe.keys import schema_keys
from ssl_adapt.recipe.load import available_recipes
from ssl_adapt.recipe.schema import Recipe

_WIDTH = 106
_MAX_LABEL_WIDTH = 30


def describe_recipes(usage: str) -> str:
    """The text of --help of a command that takes a recipe: usage, the recipes, and every key of the schema."""
    return describe_options(f"{usage}\nRecipes\n{list_recipes()}", Recipe, without_default="set by the recipe")


def describe_options(usage: str, model: type[BaseModel], *, without_default: str = "required") -> str:
    """The text of --help: the usage, and every key with its meaning, type and default; keys in sections last."""
    keys = schema_keys(model).values()
    leaves = [key for key in keys if not key.is_section]
    in_order = sorted(keys, key=lambda key: key.is_section or "." in key.name)
    width = min(_MAX_LABEL_WIDTH, max(len(key.name) for key in leaves) + 1)
    lines = [usage, "Keys [expected; default]"]
    for key in in_order:
        if key.is_section:
            lines += ["", f"{key.name}: {key.description}"]
        else:
            default = without_default if key.default is None else f"default {key.default}"
            lines.append(entry(key.name, f"{key.description} [{key.expected}; {default}]", width))
    return "\n".join(lines) + "\n"


def list_recipes() -> str:
    """A line for each recipe: how it is typed, and the first line of its file."""
    return "".join(
        entry(f"recipe={name}", _first_comment(path), _MAX_LABEL_WIDTH) + "\n"
        for name, path in available_recipes().items()
    )


def entry(label: str, text: str, width: int) -> str:
    """The label in its column and the text wrapped in the next one."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {label:<{width}} ",
        subsequent_indent=" " * (width + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
