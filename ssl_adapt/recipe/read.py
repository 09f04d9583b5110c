"""Reads `key=value ...` into a frozen model: for recipes and for the options of every command.

Written here because cyclopts, tyro and jsonargparse read `--key value`. Here the values on the command line are YAML,
as in a recipe's file; both are checked by the same strict model and give the same error messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.keys import did_you_mean, find_key, schema_keys, shown
from ssl_adapt.recipe.schema import Recipe
from ssl_adapt.recipe.yaml_text import parse_yaml

_MAX_PROBLEMS = 100
_MAX_COMPARED = 100  # characters of a name that are compared with the known ones
Model = TypeVar("Model", bound=BaseModel)


def read_options(model: type[Model], arguments: Sequence[str]) -> Model:
    """The options that `key=value ...` describes; the values are YAML, as in a recipe.

    Raises:
        ValueError: an argument is wrong or missing; a line for each problem says what to type.
    """
    texts, problems = split_arguments(model, arguments)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    found: dict[str, Any] = {}
    for name, value in parse_values(texts).items():
        *sections, leaf = name.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return check_values(model, found)


def split_arguments(
    model: type[BaseModel], arguments: Sequence[str], *, also: Sequence[str] = (), to_type: str = "key=value"
) -> tuple[dict[str, str], list[str]]:
    """The text of the value for each key, and what is wrong; keys are known, different and not nested.

    Args:
        model: whose keys they are.
        arguments: of the command line.
        also: further keys that are allowed.
        to_type: what an argument without '=' should have been.
    """
    texts: dict[str, str] = {}
    problems = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            problems.append(f"argument {shown(argument)} has no '=': type {to_type}; --help lists the keys")
        elif key in texts:
            problems.append(f"{shown(key)} is given twice: keep one of them")
        elif key not in also and find_key(key, model) is None:
            problems.append(unknown_key(key, model))
        else:
            texts[key] = text
    problems += [
        f"{parent!r} and {child!r} are given together, and the first contains the second: keep one of them"
        for child in texts
        for parent in texts
        if child.startswith(f"{parent}.")
    ]
    return texts, problems


def parse_values(texts: Mapping[str, str]) -> dict[str, Any]:
    """The values that the texts spell in YAML.

    Raises:
        ValueError: some are no YAML; a line for each.
    """
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


def check_values(model: type[Model], values: dict[str, Any], source: str | None = None) -> Model:
    """The model of these values; `source` is the recipe that they are from.

    Raises:
        ValueError: a value is wrong or missing; a line for each problem says what to type.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_sentence(model, details, values, source) for details in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"there are {len(problems) - _MAX_PROBLEMS:,} more problems: correct these first")
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def _sentence(model: type[BaseModel], details: ErrorDetails, values: dict[str, Any], source: str | None) -> str:
    """One problem that pydantic found, as a sentence; a rule between keys may give several, a line each."""
    location, value = _locate(details["loc"], values)
    name = ".".join(location)
    if details["type"].startswith("union_tag"):  # the name that chooses a section is wrong
        name = f"{name}.name"
        given, value = value, value.get("name") if isinstance(value, dict) else value
        if isinstance(given, dict) and "name" not in given:
            return _missing(name, model, source)
    key = find_key(name, model)
    if details["type"] == "missing" and isinstance(details["loc"][-1], str):  # else it is an item of a list
        return _missing(name, model, source)
    if details["type"] == "extra_forbidden":
        return unknown_key(name, model) if key is None else _foreign_key(name, values)
    while key is None and location:  # below a key that is open: what it holds is wrong as a whole
        location.pop()
        key = find_key(".".join(location), model)
        _, value = _locate(location, values)
    if key is None or (key.is_section and details["type"] == "value_error"):
        return str(details["ctx"]["error"])
    nearest = did_you_mean(value[:_MAX_COMPARED], key.choices) if isinstance(value, str) else ""
    return f"{key.name}: got {shown(value)}, expected {key.expected}{nearest}"


def _locate(place: Sequence[int | str], values: dict[str, Any]) -> tuple[list[str], Any]:
    """The parts of a key's name, and the value there, from pydantic's path to it.

    That path also has the numbers of list items, and the names of chosen sections.
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


def _missing(name: str, model: type[BaseModel], source: str | None) -> str:
    key = find_key(name, model)
    assert key is not None
    is_missing = f"{name} is missing:" if source is None else f"recipe {source!r} has no {name};"
    return f"{is_missing} add {name}=VALUE ({key.expected}): {key.description}"


def _foreign_key(name: str, values: dict[str, Any]) -> str:
    """The error message for a key that another section has than the chosen one."""
    place = name.rpartition(".")[0]
    _, section = _locate(place.split("."), values)
    own = f"{place}.name={section['name']}" if isinstance(section, dict) else f"the {place} given"
    return f"{name} has no meaning for {own}: leave it out"


def unknown_key(name: str, model: type[BaseModel] = Recipe) -> str:
    """The error message for an unknown key, with the most similar ones."""
    keys = [key.name for key in schema_keys(model).values() if not key.is_section]
    return (
        f"unknown key {shown(name)}{did_you_mean(name.lstrip('-')[:_MAX_COMPARED], keys) or '; --help lists the keys'}"
    )
