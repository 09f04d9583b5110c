"""Fuzzing untrusted input: recipes, architectures and exports load, or are refused in sentences."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ssl_adapt import Architecture, export_timm, load_recipe
from ssl_adapt.evaluation.frozen_network import load_network
from ssl_adapt.recipe import available_recipes
from ssl_adapt.recipe.keys import schema_keys

MANY = 10_000
Draw = Callable[[st.SearchStrategy[Any]], Any]

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["resnet20", "none", "identity", "pad", 0, 1, -1, 10**9, 10**400, [1, 2], {}, [], ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
YAML_PIECES = st.sampled_from(
    ["[", "]", "{", "}", ": ", "- ", "? ", "&a ", "*a", "!!int ", "!x ", "|\n", ">\n", "'", '"', "#", "%YAML 9\n",
     "---\n", "...\n", "\n", "  ", "\t", ", ", "<<: ", "\\UFFFFFFFF", '"\\ud800"', "\0", "\x85", "\ufeff", "1" * 5000,
     "1e999", ".nan", "0o7", "null", "seed: 1\n", "train:\n", "adapt: ", "é", "😀", "@", "`"]
)  # fmt: skip
YAML_TEXT = st.lists(YAML_PIECES | st.text(max_size=5), max_size=25).map("".join)
RECIPES = sorted(path.read_text(encoding="utf-8") for path in available_recipes().values())
SENSIBLE = st.sampled_from(["seed=3", "train.lr=1e-3", "adapt=null", "model.args.x=[1, {a: b}]", "knn.k=3"])
TYPED = st.tuples(st.sampled_from([*schema_keys(), "model.args.x", "x", "recipe"]) | st.text(max_size=6), YAML_TEXT)
ARGUMENTS = st.lists(SENSIBLE | SENSIBLE | TYPED.map("=".join), max_size=3)


@st.composite
def mutated(draw: Draw, texts: list[str], pieces: st.SearchStrategy[str]) -> str:
    """One of the texts, with up to four pieces put in the place of some of its characters or lines."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 3, 40]))
        text = text[:start] + draw(pieces) + text[start + length :]
    return text


@st.composite
def mutated_values(draw: Draw, values: dict[str, Any]) -> Any:
    """JSON text of the values, up to three of which, at any depth, are replaced, renamed or left out."""
    changed = json.loads(json.dumps(values))
    for _ in range(draw(st.integers(0, 3))):
        inner: Any = changed
        while True:
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            if not (isinstance(inner[key], dict | list) and inner[key]) or draw(st.booleans()):
                break
            inner = inner[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                inner[key] = deepcopy(draw(PLAIN))  # the sampled ones would change for all examples
            case "remove" if len(inner) > 1:
                inner.pop(key)
            case _ if isinstance(inner, dict):
                inner[draw(st.text(max_size=6))] = deepcopy(draw(PLAIN))
    return json.dumps(changed)


def fuzz(strategy: st.SearchStrategy[Any], read: Callable[[Any], object], examples: int) -> Counter[str]:
    """How many of the examples were read and how many refused; every line of a refusal is looked at."""
    outcomes = Counter[str]()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(strategy)
    def run(example: Any) -> None:
        try:
            read(example)
        except ValidationError:
            raise  # pydantic's own error is a ValueError too, and must not come through
        except ValueError as error:
            for line in str(error).split("\n"):
                assert line.strip(), "a line of nothing"
                assert line.isprintable()
                assert len(line) < 1000
                assert "Traceback" not in line
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1

    run()
    return outcomes


def fast_and_slow(few: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("examples", [few, pytest.param(MANY, marks=pytest.mark.slow)])


def check_counts(outcomes: Counter[str], examples: int) -> None:
    print(dict(outcomes))
    assert outcomes.total() >= examples * 0.9, "hypothesis ran out of examples"
    assert min(outcomes["read"], outcomes["refused"]) >= examples // 100, outcomes


@fast_and_slow(300)
def test_texts_of_recipes(examples: int, tmp_path: Path) -> None:
    def read(text: str) -> None:
        path = tmp_path / "fuzzed.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        load_recipe([f"recipe={path}"])

    random = fuzz(YAML_TEXT, read, examples)
    assert random["refused"] >= examples * 0.9, random
    check_counts(fuzz(mutated(RECIPES, YAML_PIECES | st.text(max_size=5)), read, examples // 3), examples // 3)


@fast_and_slow(300)
def test_arguments_of_recipes(examples: int) -> None:
    check_counts(fuzz(ARGUMENTS, lambda arguments: load_recipe(["recipe=debug", *arguments]), examples), examples)


@fast_and_slow(300)
def test_texts_of_architectures(examples: int) -> None:
    plain = Architecture.of(timm.create_model("resnet20", width=2, layers=(1,)))

    def read(text: str) -> None:
        architecture = Architecture.from_json(text)
        assert Architecture.from_json(architecture.to_json()) == architecture

    random = fuzz(PLAIN.map(json.dumps) | st.text(max_size=20), read, examples)
    assert random["refused"] >= examples * 0.9, random
    pieces = st.sampled_from([*'[]{}":,', "1e999", "NaN", '"version": 1,', "\\ud800", "\0", "9" * 400, "[" * 99])
    texts = mutated_values(plain.to_dict()) | mutated([plain.to_json()], pieces | st.text(max_size=4))
    check_counts(fuzz(texts, read, examples), examples)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_timm(timm.create_model("resnet20", width=2, layers=(1,)), tmp_path_factory.mktemp("fuzz") / "net")


@fast_and_slow(300)
def test_configurations_of_exports(examples: int, export: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(export, tmp_path / "net"))
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))

    def read(text: str) -> None:
        (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        load_network(f"local-dir:{folder}", pretrained=True)

    texts = mutated_values(config) | mutated_values(config["model_args"]).map(
        lambda text: json.dumps({**config, "model_args": json.loads(text)})
    )
    check_counts(fuzz(texts | mutated([json.dumps(config)], st.text(max_size=4)), read, examples), examples)
