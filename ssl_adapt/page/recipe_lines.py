"""The recipe of a run as lines, with what differs from the packaged recipe of its name."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_adapt.json_text import shown
from ssl_adapt.recipe import available_recipes, load_recipe
from ssl_adapt.recipe.yaml_text import dump_yaml
from ssl_adapt.runs.same_recipe import differing_keys

_KEY = re.compile(r"( *)([^\s:#][^:]*):(?: |$)")


class RecipeLine(NamedTuple):
    """A line of a recipe; `packaged` is what the packaged recipe has there, where that differs."""

    text: str
    packaged: str | None = None


def recipe_lines(values: Mapping[str, Any]) -> tuple[list[RecipeLine], str | None]:
    """The lines of `Recipe.model_dump()`, and the name of the packaged recipe that they are compared with.

    `run` is not compared: it says where a run lies and how it is watched.
    """
    name = values["name"]
    packaged: dict[str, Any] | None = None
    if name in available_recipes():
        packaged = load_recipe(name).model_dump()
    differing = set(differing_keys(packaged, dict(values))) if packaged else set()
    lines: list[RecipeLine] = []
    path: list[str] = []
    for text in dump_yaml(dict(values)).rstrip("\n").split("\n"):
        match = _KEY.match(text)
        if match is None:  # the value above goes on
            lines.append(RecipeLine(text))
            continue
        path = [*path[: len(match[1]) // 2], match[2]]
        key = ".".join(path)
        is_other = path[0] != "run" and key in differing
        lines.append(RecipeLine(text, _at(packaged or {}, path) if is_other else None))
    return lines, name if packaged else None


def _at(values: Mapping[str, Any], path: list[str]) -> str:
    """What the packaged recipe has there, as YAML would write it."""
    value: Any = values
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return "nothing"
        value = value[part]
    return shown(value) if isinstance(value, dict) else dump_yaml({"x": value})[3:].strip()
