"""Recipes: whatever is typed gives a recipe or clear sentences, and whatever is saved comes back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ssl_adapt.recipe import Recipe, load_recipe, save_recipe
from ssl_adapt.recipe.keys import schema_keys
from ssl_adapt.recipe.yaml_text import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2.5E+4", 25000.0),
        ("+.5", 0.5),
        ("-3", -3),
        ("1_000", 1000),
        ("true", True),
        ("", None),
        ("~", None),
        ("[1, 2e0, null]", [1, 2.0, None]),
        ("yes", "yes"),
        ("off", "off"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("'1e-3'", "1e-3"),
        ("<<", "<<"),
    ],
)
def test_yaml_values(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


KEYS = st.one_of(
    st.sampled_from(list(schema_keys())),
    st.sampled_from(["recipe", "model.args.width", "model.args.a.b", "epochs", "train.", ".", "", "-h", "adapt.x"]),
    st.text(max_size=8),
)
VALUES = st.one_of(
    st.sampled_from(["null", "1", "2", "true", "1e-3", "0.5", "full", "cell", "adam", "folder", "auto", "threshold"]),
    st.sampled_from(["[0.5, 0.9]", "[1, 1, 1]", "[]", "{}", "{a: 1}", "[1", "'", "&a [*a]", "!!int ''", "@", "<<"]),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=12),
)
SENSIBLE = st.one_of(
    st.sampled_from(["adapt=null", "adapt.sharing=cell", "data.root=./x y", "run.dir='1e-3'", "model.args.a.b=[1]"]),
    st.integers(-1, 2**33).map("seed={}".format),
    st.floats(0, 1e9).map("train.lr={!r}".format),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map("views.crop_scale={0[0]!r}".format)
    | st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: f"views.crop_scale={sorted(pair)}"),
)
TYPED = st.lists(SENSIBLE, max_size=3, unique=True) | st.lists(
    SENSIBLE | st.tuples(KEYS, VALUES).map("=".join) | st.text(max_size=6), max_size=3
)


def test_anything_typed_gives_a_recipe_or_a_line_for_each_problem(tmp_path: Path) -> None:
    outcomes = Counter[str]()

    @settings(max_examples=100, deadline=None)
    @given(TYPED)
    def type_it(arguments: list[str]) -> None:
        problems = []
        try:
            recipe = load_recipe(["recipe=debug", *arguments])
        except ValidationError:
            raise  # pydantic's own error is a ValueError too, and must not come through
        except ValueError as error:
            problems = str(error).split("\n")
        else:
            save_recipe(recipe, tmp_path / "again.yaml")
            assert load_recipe([f"recipe={tmp_path / 'again.yaml'}"]) == recipe
        for line in problems:
            assert line == line.strip()
            assert line.isprintable()
            assert 10 < len(line) < 400
        outcomes["error" if problems else "recipe"] += 1

    type_it()
    assert min(outcomes["recipe"], outcomes["error"]) >= 10, outcomes


POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["1e-3", "null", "yes", "true", "1", "~", "<<", "", " a", "é\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(lr=POSITIVE, threshold=st.floats(allow_nan=False, allow_infinity=False), plain=PLAIN)
@example(lr=5e-324, threshold=-0.0, plain={"\x85": "\u2028"})  # line breaks for YAML, not for most readers
def test_saved_values_come_back_to_the_bit(
    lr: float, threshold: float, plain: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "saved.yaml"
    recipe = load_recipe(["recipe=debug", f"train.lr={lr!r}", f"adapt.none_threshold={threshold!r}"])
    assert recipe.adapt is not None
    assert (recipe.train.lr.hex(), recipe.adapt.none_threshold.hex()) == (lr.hex(), threshold.hex())
    recipe = Recipe.model_validate({**recipe.model_dump(), "model": {"name": "x", "args": {"any": plain}}})
    save_recipe(recipe, path)
    again = load_recipe([f"recipe={path}"])
    assert again == recipe
    assert repr(again) == repr(recipe), "equal values of another type, such as 1 and True or -0.0 and 0.0"
