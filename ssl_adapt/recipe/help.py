"""The text of --help, read off the recipes and the schema."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ssl_adapt.recipe.keys import Key, schema_keys
from ssl_adapt.recipe.load import available_recipes

_WIDTH = 106
_KEY_WIDTH = 30
_USAGE = """\
usage: python scripts/pretrain.py recipe=NAME_OR_PATH [KEY=VALUE ...]

A recipe is a YAML file; KEY=VALUE replaces one of its values for this run. Values are YAML too:
  train.lr=1e-3   adapt=null   model.args.width=8   'views.crop_scale=[0.2, 1.0]' (quoted for the shell)
"""


def describe_recipes() -> str:
    """The text of --help: usage, the recipes, and every key with its meaning, type and default."""
    lines = [_USAGE, "Recipes"]
    for name, path in available_recipes().items():
        lines.append(_entry(f"recipe={name}", _first_comment(path)))
    lines += ["", "Keys [expected; default]"]
    for key in schema_keys().values():
        if key.is_section:
            lines += ["", f"{key.name}: {key.description}"]
        else:
            lines.append(_entry(key.name, f"{key.description} [{key.expected}; {_default(key)}]"))
    return "\n".join(lines) + "\n"


def _default(key: Key) -> str:
    return "set by the recipe" if key.default is None else f"default {key.default}"


def _entry(label: str, text: str) -> str:
    """The label in its column and the text wrapped in the next one."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {label:<{_KEY_WIDTH}} ",
        subsequent_indent=" " * (_KEY_WIDTH + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
