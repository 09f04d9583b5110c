"""Reads text and JSON from untrusted files: limited in size, plain values only."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from ssl_adapt.errors import UserError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 32
_MAX_DIGITS = 300  # as many as a float has before the point; Python itself refuses to read more than 4,300
_TOO_LONG = f"holds an integer of more than {_MAX_DIGITS} digits: write a smaller one"
_SHOWN_CHARACTERS = 60


def shown(value: object) -> str:
    """The value as Python writes it, on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def one_line(error: Exception) -> str:
    """The error's message on one line, free of control characters; the name of its class where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.isprintable() else ascii(text)


def read_text(path: Path, what: str, max_bytes: int = MAX_BYTES) -> str:
    """The text of a regular file in UTF-8; never more than `max_bytes` of it are in memory.

    Args:
        path: the file.
        what: its name in the errors.
        max_bytes: what a larger file is refused for.

    Raises:
        ValueError: it is a folder, pipe or device, can't be read, is too large, or is not text.
    """
    if not os.path.isfile(path):  # reading a pipe waits for ever; os.path takes names that no file can have
        raise UserError(f"{what} is not a regular file: give a file of text")
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise UserError(f"{what} is larger than {max_bytes / 2**20:g} MiB: give one that was written for this")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{what} is not text in UTF-8") from None


def read_json(text: str, what: str) -> Any:
    """The plain values that the JSON text spells.

    Args:
        text: the JSON.
        what: its name in the errors.

    Raises:
        ValueError: the text is too long or no JSON, has a key twice, or holds what `check_plain` refuses.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{what} has {len(text):,} characters, and at most {MAX_BYTES:,} are read")
    try:
        values = json.loads(
            text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=_read_integer
        )
    except json.JSONDecodeError as error:
        raise UserError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise UserError(_too_deep(what)) from None
    except ValueError as error:
        raise UserError(f"{what} {error}") from None
    check_plain(values, what)
    return values


def check_plain(value: Any, what: str, depth: int = MAX_DEPTH) -> None:
    """Raise an error for a value that is not JSON, or that other readers of JSON can't read.

    Args:
        value: what to look through; a tuple is a list.
        what: its name in the errors.
        depth: how deeply mappings and lists may be nested.

    Raises:
        ValueError: naming the first value that is nested too deeply, not finite, too long, not text or of no JSON type.
    """
    if isinstance(value, Mapping | list | tuple) and depth == 0:
        raise UserError(_too_deep(what))
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(f"{what} has the key {shown(key)}: keys are text")
            check_plain(key, what)
            check_plain(item, what, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, what, depth - 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{what} holds {shown(value)}, which has half of a surrogate pair and is no text")
    elif isinstance(value, float):
        if not isfinite(value):
            raise UserError(f"{what} holds {value}: write a finite number")
    elif isinstance(value, int):
        if abs(value) >= 10**_MAX_DIGITS:
            raise UserError(f"{what} {_TOO_LONG}")
    elif value is not None:
        raise UserError(f"{what} holds a {type(value).__name__}: numbers, text, lists and mappings are JSON values")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise UserError(f"has the key {shown(counts.most_common(1)[0][0])} twice: keep one of them")
    return values


def _refuse_constant(name: str) -> None:
    raise UserError(f"holds {name}: write a finite number")


def _read_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise UserError(_TOO_LONG)
    return int(text)


def _too_deep(what: str) -> str:
    return f"{what} is nested more than {MAX_DEPTH} deep: it was not written by this package"
