"""`key=value` arguments of scripts that take no recipe: one table of keys is read for values, errors and help."""

import difflib
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssl_adapt.errors import UserError

_WIDTH = 106
_KEY_WIDTH = 14


class Kind(NamedTuple):
    """A kind of value: what is expected, in words, and its reading from text; that raises ValueError."""

    expected: str
    read: Callable[[str], Any]


@dataclass(frozen=True)
class Key:
    """One key: its kind, its meaning, and its default in words; without a default it must be given."""

    kind: Kind
    meaning: str
    default: str | None


def _require(value: Any, condition: bool) -> Any:
    if not condition:
        raise ValueError
    return value


def one_of(choices: Sequence[str]) -> Kind:
    """One of these words."""
    return Kind(" | ".join(choices), lambda text: _require(text, text in choices))


def whole_number(at_least: int) -> Kind:
    """An integer of at least that."""
    return Kind(f"integer >= {at_least}", lambda text: _require(int(text), int(text) >= at_least))


TEXT = Kind("text", lambda text: _require(text, text != ""))
POSITIVE = Kind("number > 0", lambda text: _require(float(text), 0 < float(text) < math.inf))
TRUE_OR_FALSE = Kind("true | false", lambda text: _require(text == "true", text in ("true", "false")))
NEW_FILE = Kind(
    "path of a file in a folder that exists",
    lambda text: _require(Path(text), Path(text).parent.is_dir() and text != "" and not Path(text).is_dir()),
)


def read_arguments(arguments: Sequence[str], keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values that were given, by key; nothing is filled in.

    Raises:
        ValueError: an argument has no `=`, a key is unknown, given twice or missing, or its value is not what
            is expected; the message says what to type.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise UserError(f"argument {argument!r} has no '=': type key=value; --help lists the keys")
        if name not in keys:
            raise UserError(f"unknown key {name!r}{_nearest_key(name, keys)}")
        if name in values:
            raise UserError(f"{name!r} is given twice: keep one of them")
        kind = keys[name].kind
        try:
            values[name] = kind.read(text)
        except ValueError:
            near = difflib.get_close_matches(text, kind.expected.split(" | "), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{name}: got {text!r}, expected {kind.expected}{hint}") from None
    for name, key in keys.items():
        if key.default is None and name not in values:
            raise UserError(f"{name} is missing: add {name}=VALUE, {key.meaning}")
    return values


def describe_keys(usage: str, keys: Mapping[str, Key]) -> str:
    """The text of --help: the usage, then every key with its meaning, what is expected, and its default."""
    lines = [usage, "Keys [expected; default]"]
    for name, key in keys.items():
        default = "required" if key.default is None else f"default: {key.default}"
        lines.append(
            textwrap.fill(
                f"{key.meaning} [{key.kind.expected}; {default}]",
                _WIDTH,
                initial_indent=f"  {name:<{_KEY_WIDTH}}",
                subsequent_indent=" " * (_KEY_WIDTH + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def _nearest_key(name: str, keys: Mapping[str, Key]) -> str:
    """A hint; the last part of a dotted name counts most, as in `knn.k`, the name that a recipe has for k."""
    name = name.lstrip("-")
    leaf = name.rpartition(".")[2]
    near = [leaf] if leaf in keys else difflib.get_close_matches(name, keys, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(keys)}"
