"""YAML as recipes use it: 1e-3 is a number, and tags, aliases and repeated keys are errors."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from ssl_adapt.errors import UserError

MAX_DEPTH = 32
_MAX_PROBLEM = 200  # characters: PyYAML's sentences may hold a whole line of the file
_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
)


def _refusal(problem: str, place: Any) -> yaml.MarkedYAMLError:
    """The error for something that recipes may not contain, with its line and column."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


class _RecipeLoader(yaml.SafeLoader):
    """PyYAML's loader with YAML 1.2's values: 1e-3 is a number; yes, 010, 1:30 and 2024-01-31 are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML looks the table up on the class)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; aliases and explicit tags are refused, so that each value can be read where it is."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases are not used in recipes", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags are not used in recipes", event)
        if self.depth == MAX_DEPTH:
            raise _refusal("nested too deeply", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and not node.value.isascii() and re.search("[\ud800-\udfff]", node.value):
            raise _refusal("an escape gives half of a surrogate pair, which is no text", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping; keys must be text and different, where PyYAML keeps the last of two equal ones."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal("a key must be text", key_node)
            if key in seen:
                raise _refusal(f"the key {key!r} is there twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _RecipeDumper(yaml.SafeDumper):
    """PyYAML's dumper, quoting by the loader's rules; mappings in blocks, lists on one line."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """True: a value that occurs twice is written twice."""
        return True


def _represent_list(dumper: yaml.SafeDumper, values: list[Any] | tuple[Any, ...]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """The text, escaped where it is not printable: between PyYAML's single quotes U+0085 gets lost."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _name, _pattern, _first in _RESOLVERS:
    for _class in (_RecipeLoader, _RecipeDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)
_RecipeDumper.add_representer(str, _represent_text)
_RecipeDumper.add_representer(list, _represent_list)
_RecipeDumper.add_representer(tuple, _represent_list)


def parse_yaml(text: str) -> Any:
    """The value that the text spells: null, bool, int, float, str, or lists and mappings of them.

    Raises:
        ValueError: the text is not YAML, is nested too deeply, or uses a tag, an alias or a key twice; the message is
            one line.
    """
    try:
        return yaml.load(text, _RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        problem = " ".join((error.problem or "not complete").split())
        raise UserError(f"{problem[:_MAX_PROBLEM]}{place}") from None
    except yaml.reader.ReaderError as error:
        raise UserError(f"{error.reason} (at position {error.position})") from None
    except (ValueError, OverflowError):  # of int() and chr()
        raise UserError(
            "an integer has more than 4,300 digits, or an escape such as \\U00110000 is no character"
        ) from None


def dump_yaml(values: dict[str, Any]) -> str:
    """The YAML text that `parse_yaml` reads back to equal values, floats to the last bit."""
    return yaml.dump(
        values, Dumper=_RecipeDumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=100
    )
