"""From `recipe=NAME key=value ...` to a Recipe, and from a Recipe to a file that gives it again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_text
from ssl_adapt.recipe.keys import did_you_mean, find_key, schema_keys, shown
from ssl_adapt.recipe.schema import Recipe
from ssl_adapt.recipe.yaml_text import dump_yaml, parse_yaml

MAX_BYTES = 2**20  # of a recipe's file
FIRST = ("debug", "quickstart")  # of the recipes, wherever they are listed
_MAX_PROBLEMS = 100
_MAX_COMPARED = 100  # characters of a name that are compared with the known ones


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
    and true / false are never converted into one another, except that an integer will do for a number. No file is
    created or changed.

    Args:
        source: name of a shipped recipe, path of a file, or a list of arguments of the command line.
        values: further values by their dotted keys: `load_recipe("debug", {"train.epochs": 2})`.

    Raises:
        ValueError: an argument, the file or a value is wrong; a line for each problem says what to type.
    """
    texts = _split_arguments([f"recipe={source}"] if isinstance(source, str) else source)
    _check_keys(values or {})
    source = texts.pop("recipe")
    overrides = {**_parse_overrides(texts), **{key: _as_yaml(value) for key, value in (values or {}).items()}}
    path = _recipe_path(source)
    found = _read_recipe(path)
    for name, value in overrides.items():
        _override(found, name, value, source)
    found.setdefault("name", path.stem)
    try:
        return Recipe.model_validate(found)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_sentence(details, found, source) for details in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"there are {len(problems) - _MAX_PROBLEMS:,} more problems: correct these first")
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def _check_keys(values: Mapping[str, Any]) -> None:
    problems = [_unknown_key(key) for key in values if find_key(key) is None]
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


def _split_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """The text of the value for each key, 'recipe' among them; keys are known, different and not nested."""
    texts: dict[str, str] = {}
    problems = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            problems.append(f"argument {shown(argument)} has no '=': type recipe=NAME or key=value; --help lists them")
        elif key in texts:
            problems.append(f"{shown(key)} is given twice: keep one of them")
        elif key != "recipe" and find_key(key) is None:
            problems.append(_unknown_key(key))
        else:
            texts[key] = text
    problems += [
        f"{parent!r} and {child!r} are given together, and the first contains the second: keep one of them"
        for child in texts
        for parent in texts
        if child.startswith(f"{parent}.")
    ]
    if not any(argument.startswith("recipe=") for argument in arguments):
        problems.append(f"no recipe given: add recipe=NAME or recipe=PATH; available: {_available()}")
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return texts


def _parse_overrides(texts: dict[str, str]) -> dict[str, Any]:
    values = {}
    problems = []
    for key, text in texts.items():
        try:
            values[key] = parse_yaml(text)
        except ValueError as error:
            problems.append(f"{key}: {shown(text)} is not a YAML value: {error}; quotes make it text: {key}=\"'...'\"")
    if problems:
        raise UserError("\n".join(problems))
    return values


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


def _sentence(details: ErrorDetails, values: dict[str, Any], source: str) -> str:
    """One problem that pydantic found, as a sentence; a rule between keys may give several, a line each."""
    location, value = _locate(details["loc"], values)
    name = ".".join(location)
    if details["type"].startswith("union_tag"):  # which of several sections it is
        name = f"{name}.name"
        given, value = value, value.get("name") if isinstance(value, dict) else value
        if isinstance(given, dict) and "name" not in given:
            return _missing(name, source)
    key = find_key(name)
    if details["type"] == "missing" and isinstance(details["loc"][-1], str):  # else it is an item of a list
        return _missing(name, source)
    if details["type"] == "extra_forbidden":
        return _unknown_key(name) if key is None else _foreign_key(name, values)
    while key is None and location:  # below a key that is open: what it holds is wrong as a whole
        location.pop()
        key = find_key(".".join(location))
        _, value = _locate(location, values)
    if key is None or (key.is_section and details["type"] == "value_error"):
        return str(details["ctx"]["error"])
    nearest = did_you_mean(value[:_MAX_COMPARED], key.choices) if isinstance(value, str) else ""
    return f"{key.name}: got {shown(value)}, expected {key.expected}{nearest}"


def _locate(place: Sequence[int | str], values: dict[str, Any]) -> tuple[list[str], Any]:
    """The parts of a key's name, and the value there, from pydantic's way to it.

    On that way also stand the numbers of list items, and the names of sections where several may stand.
    """
    parts: list[str] = []
    value: Any = values
    for step in place:
        if isinstance(step, int):
            if isinstance(value, list) and step < len(value) and isinstance(value[step], dict):  # else no section
                value = value[step]
        elif isinstance(value, dict) and step in value:
            parts.append(str(step))
            value = value[step]
        elif not (isinstance(value, dict) and value.get("name") == step):
            parts.append(step)  # a key that is not there
            value = None
    return parts, value


def _missing(name: str, source: str) -> str:
    key = find_key(name)
    assert key is not None
    return f"recipe {source!r} has no {name}; add {name}=VALUE ({key.expected}): {key.description}"


def _foreign_key(name: str, values: dict[str, Any]) -> str:
    """The key is one of another section than the one that stands there."""
    place = name.rpartition(".")[0]
    _, section = _locate(place.split("."), values)
    own = f"{place}.name={section['name']}" if isinstance(section, dict) else f"the {place} given"
    return f"{name} has no meaning for {own}: leave it out"


def _unknown_key(name: str) -> str:
    keys = [key.name for key in schema_keys().values() if not key.is_section]
    return (
        f"unknown key {shown(name)}{did_you_mean(name.lstrip('-')[:_MAX_COMPARED], keys) or '; --help lists the keys'}"
    )


def _available() -> str:
    return ", ".join(available_recipes())
