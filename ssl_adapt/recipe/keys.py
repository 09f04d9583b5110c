"""The dotted keys of the schema, for the help and for errors that name the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ssl_adapt.recipe.schema import Recipe
from ssl_adapt.recipe.values import Expected

_UNIONS = (Union, UnionType)  # `Text | None` is the first, since Text is Annotated; `str | None` the second
_LIKENESS_TO_SUGGEST = 0.6
_FILLED_IN = {"name": "the name of the recipe's file"}  # by load_recipe, where the file has none


@dataclass(frozen=True)
class Key:
    """One dotted key: what it expects and means, its default as YAML (None: it has none), its choices."""

    name: str
    expected: str
    description: str
    default: str | None
    choices: tuple[str, ...]
    is_section: bool
    is_open: bool


@cache
def schema_keys() -> dict[str, Key]:
    """Every key of a recipe by its dotted name, sections before their keys, in the order of the schema."""
    return {key.name: key for key in _walk(Recipe, "")}


def find_key(name: str) -> Key | None:
    """The key of that name, the open key (model.args) where it is one of the names below that, or None."""
    keys = schema_keys()
    if name in keys:
        return keys[name]
    open_keys = (key for key in keys.values() if key.is_open and name.startswith(f"{key.name}."))
    return next((key for key in open_keys if all(part.isidentifier() for part in name.split("."))), None)


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """'; did you mean ...?' with the most similar names, or '' where none is similar.

    A dotted name is also compared by its last part, so that 'epochs' finds every key that ends in it.
    """
    leaf = given.rpartition(".")[2]
    likeness = {
        name: max(
            SequenceMatcher(None, given, name).ratio(),
            0.95 * SequenceMatcher(None, leaf, name.rpartition(".")[2]).ratio(),
        )
        for name in names
    }
    best = max(likeness.values(), default=0.0)
    if best < _LIKENESS_TO_SUGGEST:
        return ""
    nearest = [name for name, value in likeness.items() if value > best - 0.01][:3]
    return f"; did you mean {' or '.join(repr(name) for name in nearest)}?"


def shown(value: object) -> str:
    """The value as the user would type it, on one line, cut where it is long."""
    names: dict[object, str] = {None: "null", True: "true", False: "false"}
    text = names[value] if isinstance(value, bool | NoneType) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    hints = get_type_hints(model, include_extras=True)
    for field_name, field in model.model_fields.items():
        name = f"{prefix}{field_name}"
        section = _section(hints[field_name])
        yield Key(
            name=name,
            expected=_expected(hints[field_name]),
            description=field.description or "",
            default=_default(name, field),
            choices=_choices(hints[field_name]),
            is_section=section is not None,
            is_open=field.annotation == dict[str, Any],
        )
        if section is not None:
            yield from _walk(section, f"{name}.")


def _default(name: str, field: FieldInfo) -> str | None:
    if name in _FILLED_IN:
        return _FILLED_IN[name]
    if field.is_required():
        return None
    return "[]" if field.default == () else shown(field.default).strip("'")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in _UNIONS else (hint,)


def _section(hint: Any) -> type[BaseModel] | None:
    sections = (h for h in _alternatives(hint) if isinstance(h, type) and issubclass(h, BaseModel))
    return next(sections, None)


def _choices(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _expected(hint: Any) -> str:
    """What a value of that type must be, in words."""
    if get_origin(hint) in _UNIONS:
        return " or ".join(_expected(alternative) for alternative in get_args(hint))
    if get_origin(hint) is Annotated:
        return next(note.text for note in hint.__metadata__ if isinstance(note, Expected))
    if get_origin(hint) is Literal:
        return " | ".join(get_args(hint))
    if hint is bool:
        return "true or false"
    if hint is NoneType:
        return "null"
    return f"section with the keys ({', '.join(hint.model_fields)})"
