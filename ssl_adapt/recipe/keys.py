"""The dotted keys of a recipe or a command, for the help and for errors that name the most similar key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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


def schema_keys(model: type[BaseModel] = Recipe) -> dict[str, Key]:
    """Every key of a recipe, or of other options, by its dotted name; sections before their keys, in their order."""
    return _keys_of(model)


@cache
def _keys_of(model: type[BaseModel]) -> dict[str, Key]:
    return {key.name: key for key in _walk(model, "")}


def find_key(name: str, model: type[BaseModel] = Recipe) -> Key | None:
    """The key of that name, or the open key (model.args) for a name below it, or None."""
    keys = schema_keys(model)
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
        name = f"{prefix}{field.alias or field_name}"
        hint = hints[field_name]
        sections = _sections(hint)
        yield Key(
            name=name,
            expected=_expected(hint),
            description=field.description or "",
            default=_default(name, field),
            choices=_choices(hint),
            is_section=bool(sections),
            is_open=field.annotation == dict[str, Any],
        )
        if len(sections) == 1:
            yield from _walk(sections[0], f"{name}.")
        elif sections:
            yield from _merge({section_tag(section): list(_walk(section, f"{name}.")) for section in sections})


def _merge(variants: dict[str, list[Key]]) -> Iterator[Key]:
    """The keys of the sections that `name` chooses from; the description of each names its sections."""
    merged: dict[str, dict[str, Key]] = {}
    for tag, keys in variants.items():
        for key in keys:
            merged.setdefault(key.name, {})[tag] = key
    for name, owners in merged.items():
        first = next(iter(owners.values()))
        if name.endswith(".name"):
            described = "; ".join(f"{tag}: {key.description}" for tag, key in owners.items())
            yield replace(first, expected=" | ".join(owners), choices=tuple(owners), description=described)
            continue
        meanings: dict[str, list[str]] = {}
        for tag, key in owners.items():
            meanings.setdefault(key.description, []).append(tag)
        described = "; ".join(f"{', '.join(tags)}: {meaning}" for meaning, tags in meanings.items())
        yield replace(first, description=described)


def section_tag(section: type[BaseModel]) -> str:
    """The value of `name` that chooses this section."""
    return str(get_args(get_type_hints(section)["name"])[0])


def _default(name: str, field: FieldInfo) -> str | None:
    if name in _FILLED_IN:
        return _FILLED_IN[name]
    if field.is_required():
        return None
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return shown(value).strip("'")


def _sections(hint: Any) -> list[type[BaseModel]]:
    """The sections that the type hint allows, in tuples too."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return [section for part in inner for section in _sections(part)]


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    return tuple(choice for part in get_args(hint) if get_origin(hint) in _UNIONS for choice in _choices(part))


def _expected(hint: Any) -> str:
    """What a value of that type must be, in words."""
    if sections := _sections(hint):
        keys = dict.fromkeys(key for section in sections for key in section.model_fields)
        return f"section with the keys ({', '.join(keys)})" + (" or null" if NoneType in get_args(hint) else "")
    if get_origin(hint) in _UNIONS:
        return " or ".join(_expected(alternative) for alternative in get_args(hint))
    if get_origin(hint) is Annotated:
        return next(note.text for note in hint.__metadata__ if isinstance(note, Expected))
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if hint is bool:
        return "true or false"
    assert hint is NoneType
    return "null"
