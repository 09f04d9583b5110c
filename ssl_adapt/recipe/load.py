"""Loads a Recipe from `recipe=NAME key=value ...`, and saves one as a file that can be loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_text
from ssl_adapt.recipe.keys import did_you_mean, find_key, shown
from ssl_adapt.recipe.read import check_values, parse_values, split_arguments, unknown_key
from ssl_adapt.recipe.schema import Recipe
from ssl_adapt.recipe.yaml_text import dump_yaml, parse_yaml

MAX_BYTES = 2**20  # of a recipe's file
FIRST = ("debug", "quickstart")  # in every list of recipes


def available_recipes() -> dict[str, Path]:
    """The shipped recipes, name -> file: from the installed package, or from the repository of a checkout."""
    package = Path(__file__).resolve().parent.parent
    folder = package / "recipes"
    if not folder.is_dir():
        folder = package.parent / "recipes"
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {name: found[name] for name in sorted(found, key=lambda name: name not in FIRST)}


def load_recipe(source: str | Sequence[str], values: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name or file, or the one that `recipe=NAME_OR_PATH key=value ...` describes.

    The values replace those of the file before the whole is checked; on the command line they are YAML. Numbers, text
    and true / false are never converted into one another, except that an integer is accepted as a number. No file is
    created or changed.

    Args:
        source: name of a shipped recipe, path of a file, or a list of arguments of the command line.
        values: further values by their dotted keys: `load_recipe("debug", {"train.epochs": 2})`.

    Raises:
        ValueError: an argument, the file or a value is wrong; a line for each problem says what to type.
    """
    arguments = [f"recipe={source}"] if isinstance(source, str) else source
    texts, problems = split_arguments(Recipe, arguments, also=["recipe"], to_type="recipe=NAME or key=value")
    if not any(argument.startswith("recipe=") for argument in arguments):
        problems.append(f"no recipe given: add recipe=NAME or recipe=PATH; available: {_available()}")
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    _check_keys(values or {})
    source = texts.pop("recipe")
    overrides = {**parse_values(texts), **{key: _as_yaml(value) for key, value in (values or {}).items()}}
    path = _recipe_path(source)
    found = _read_recipe(path)
    for name, value in overrides.items():
        _override(found, name, value, source)
    found.setdefault("name", path.stem)
    return check_values(Recipe, found, source)


def _check_keys(values: Mapping[str, Any]) -> None:
    problems = [unknown_key(key) for key in values if find_key(key) is None]
    if problems:
        raise UserError("\n".join(problems))


def _as_yaml(value: Any) -> Any:
    """The value as YAML would give it: a tuple is a list there."""
    if isinstance(value, Mapping):
        return {key: _as_yaml(inner) for key, inner in value.items()}
    return [_as_yaml(inner) for inner in value] if isinstance(value, list | tuple) else value


def recipe_text(recipe: Recipe) -> str:
    """The recipe as the text of a file that `load_recipe(["recipe=PATH"])` reads back to an equal recipe."""
    return (
        f"# Recipe of the run {recipe.name}, complete: recipe=PATH_OF_THIS_FILE starts it again.\n"
        f"{dump_yaml(recipe.model_dump())}"
    )


def save_recipe(recipe: Recipe, path: Path | str) -> None:
    """Write `recipe_text` to a file."""
    Path(path).write_text(recipe_text(recipe), encoding="utf-8")


def _recipe_path(source: str) -> Path:
    recipes = available_recipes()
    if source in recipes:
        return recipes[source]
    path = Path(os.path.expanduser(source))  # os.path gives no error for a user or a file name that cannot be
    if os.path.isfile(path):
        return path
    if os.path.exists(path):
        inside = path / "recipe.yaml"
        instead = f"recipe={inside}" if os.path.isfile(inside) else "recipe=NAME or the path of a YAML file"
        raise UserError(f"recipe {source!r} is not a regular file: type {instead}")
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    what = "recipe file not found:" if is_path else "unknown recipe"
    raise UserError(f"{what} {source!r}{did_you_mean(path.stem, recipes) or ';'} available: {_available()}")


def _read_recipe(path: Path) -> dict[str, Any]:
    name = repr(str(path))
    text = read_text(path, f"recipe file {name}", MAX_BYTES)
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"recipe file {name} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"recipe file {name} must hold 'key: value' lines, got {shown(values)}")
    return values


def _override(values: dict[str, Any], name: str, value: Any, source: str) -> None:
    """Put the value at the dotted name, in place; a section that the file lacks is made."""
    *parents, leaf = name.split(".")
    section = values
    for depth, parent in enumerate(parents, start=1):
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            place = ".".join(parents[:depth])
            message = f"{name} cannot be set: recipe {source!r} has {place}: {shown(inner)}"
            if place == "adapt" and inner is None:
                message += (
                    " (the original network); take a recipe that adapts, such as quickstart, "
                    "or give all keys at once: adapt='{sharing: full, epochs: 10, ...}'"
                )
            raise UserError(message)
        section = inner
    section[leaf] = value


def _available() -> str:
    return ", ".join(available_recipes())
