"""Recipes: what the shipped files say, what the command line accepts, what the help shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from pydantic import BaseModel, ValidationError
from recipe_files import SHIPPED, debug_text, write_recipe

from ssl_adapt.commands.pretrain_command import help_text
from ssl_adapt.recipe import available_recipes, load_recipe, save_recipe
from ssl_adapt.recipe.keys import find_key, schema_keys

LEAVES = [key for key in schema_keys().values() if not key.is_section]


def values_below(model: BaseModel) -> Iterator[Any]:
    """Every value in the model and its sections, sections included."""
    for _, value in model:
        yield value
        for section in value if isinstance(value, tuple) else (value,):
            if isinstance(section, BaseModel):
                yield from values_below(section)


def has(recipe: Any, key: str) -> bool:
    """Whether the section that stands there has the key."""
    place, leaf = key.split(".")
    section = recipe.views[0] if place == "views" else getattr(recipe, place)
    return leaf in type(section).model_fields


# --- the shipped files ------------------------------------------------------------------------------------


def test_the_shipped_recipes_are_these() -> None:
    assert tuple(available_recipes()) == SHIPPED
    assert all(path.parent == ROOT / "recipes" for path in available_recipes().values())


@pytest.mark.parametrize("name", SHIPPED)
def test_header_says_what_source_command_hardware_and_expectation(name: str) -> None:
    lines = available_recipes()[name].read_text(encoding="utf-8").splitlines()
    header = lines[: lines.index("")]
    assert all(line.startswith("# ") for line in header)
    assert len(header[0]) > 20, "the first line says what the recipe is"
    starts = ("# Source: ", "# Command: ", "# Hardware and time: ", "# Expected: ")
    places = [i for i, line in enumerate(header) if line.startswith(starts)]
    assert [header[i].partition(": ")[0] + ": " for i in places] == list(starts)
    if name.startswith("finetune_"):
        assert f" -m ssl_adapt finetune recipe={name} model.weights=" in header[places[1]]
    else:
        assert header[places[1]].endswith(f" scripts/pretrain.py recipe={name}")
    expected = " ".join(header[places[3] :])
    assert "not yet run" in expected or re.search(r"\d", expected)
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("name", SHIPPED)
def test_values_that_the_paper_leaves_open_are_marked_assumed(name: str) -> None:
    text = available_recipes()[name].read_text(encoding="utf-8")
    lines = text.splitlines()
    seen = 0
    document = yaml.compose(text)
    assert document is not None
    for section, section_node in document.value:
        if not isinstance(section_node, yaml.MappingNode):
            continue
        for key, _ in section_node.value:
            described = schema_keys()[f"{section.value}.{key.value}"].description
            comment = lines[key.start_mark.line].partition("#")[2]
            assert ("assumed" in described) == ("assumed" in comment), f"{section.value}.{key.value}"
            seen += "assumed" in described
    adapt = load_recipe([f"recipe={name}"]).adapt
    assert adapt is not None
    marked = [key.name for key in LEAVES if "assumed" in key.description]
    assert seen == sum(adapt.score == "theta" or "theta" not in key for key in marked)
    assert len(marked) == 9


def test_assumed_keys_are_those_that_the_paper_leaves_open() -> None:
    theta = ("epochs", "theta_lr", "theta_betas", "theta_weight_decay", "theta_batch", "theta_updates_bn")
    assert {key.name for key in LEAVES if "assumed" in key.description} == {
        "data.batch_size",
        *(f"adapt.{name}" for name in (*theta, "shape_change", "scale")),
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_survives_saving(name: str, tmp_path: Path) -> None:
    recipe = load_recipe([f"recipe={name}"])
    assert recipe.name == name
    assert recipe.run_dir == Path("runs") / name
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe([f"recipe={tmp_path / 'recipe.yaml'}"]) == recipe


def test_the_reference_recipe_has_the_settings_of_the_public_reference() -> None:
    recipe = load_recipe(["recipe=simclr_resnet50"])
    chosen_otherwise = {
        "root",
        "workers",
        "on_bad_image",
        "train_images",
        "labelled_share",
        "image_column",
        "label_column",
    }
    assert recipe.data.model_dump(exclude=chosen_otherwise) == {
        "name": "cifar10",
        "image_px": 32,
        "batch_size": 512,
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2023, 0.1994, 0.2010),
    }
    [view] = recipe.views
    assert view.model_dump() == {
        "name": "resized_crop",
        "crop_scale": (0.08, 1.0),
        "crop_ratio": (3 / 4, 4 / 3),
        "antialias": True,
        "flip_p": 0.5,
        "jitter": (0.4, 0.4, 0.4, 0.1),
        "jitter_p": 0.8,
        "grayscale_p": 0.2,
        "blur_p": 0.0,
        "blur_sigma": (0.1, 2.0),
        "solarize_p": 0.0,
    }
    assert (recipe.model.name, recipe.model.args) == ("resnet50_cifar", {})
    assert recipe.objective.model_dump(exclude_none=True) == {
        "name": "simclr",
        "temperature": 0.5,
        "projector_hidden": 512,
        "projector_out": 128,
        "view_forward": "separate",
    }
    train = recipe.train
    assert (train.epochs, train.max_steps, train.optimizer, train.lr) == (500, None, "adam", 1e-3)
    assert (train.weight_decay, train.schedule, train.warmup_epochs) == (1e-6, "constant", 0)
    assert (train.momentum, train.clip_grad_norm) == (None, None)
    adapt = recipe.adapt
    assert adapt is not None
    assert (adapt.sharing, adapt.epochs) == ("full", 50)
    assert (adapt.theta_lr, adapt.theta_betas) == (3e-4, (0.5, 0.999))
    assert (adapt.theta_weight_decay, adapt.theta_batch, adapt.theta_updates_bn) == (0, "same", False)
    assert (adapt.none_rule, adapt.mode, adapt.anneal_epochs, adapt.scale) == ("literal", "hard", 0, "one")
    assert (recipe.knn.k, recipe.knn.temperature) == (200, 0.5)
    assert (recipe.knn.weighting, recipe.knn.layer) == ("exp", "backbone")


# --- what the command line accepts ------------------------------------------------------------------------


def test_overrides_replace_values_of_the_file() -> None:
    recipe = load_recipe(
        ["train.epochs=3", "recipe=quickstart", "adapt=null", "train.lr=1e-3", "run.trackers=[tensorboard]"]
    )
    assert (recipe.train.epochs, recipe.adapt, recipe.train.lr) == (3, None, 1e-3)
    assert recipe.run.trackers == ("tensorboard",)
    original = load_recipe(["recipe=quickstart"])
    assert recipe.data == original.data
    assert original.adapt is not None


@pytest.mark.parametrize("sharing", ["cell", "full"])
def test_both_forms_of_sharing_are_one_override_away(sharing: str) -> None:
    adapt = load_recipe(["recipe=simclr_resnet50", f"adapt.sharing={sharing}"]).adapt
    assert adapt is not None
    assert adapt.sharing == sharing


def test_keys_below_model_args_are_free() -> None:
    recipe = load_recipe(["recipe=debug", "model.args.width=4", "model.args.act.name=relu", "model.args.on=[1]"])
    assert recipe.model.args == {"width": 4, "act": {"name": "relu"}, "on": [1]}


def test_a_whole_section_can_be_given_where_the_recipe_has_none(tmp_path: Path) -> None:
    adapt = load_recipe(["recipe=debug"]).adapt
    assert adapt is not None
    original = tmp_path / "original.yaml"
    save_recipe(load_recipe(["recipe=debug", "adapt=null"]), original)
    values = yaml.safe_dump(adapt.model_dump(mode="json"), default_flow_style=True, width=10_000)
    assert load_recipe([f"recipe={original}", f"adapt={values}"]).adapt == adapt


@pytest.mark.parametrize(
    ("argument", "folder"), [("run.dir=elsewhere/x", "elsewhere/x"), ("run.dir=null", "runs/debug")]
)
def test_run_dir(argument: str, folder: str) -> None:
    assert load_recipe(["recipe=debug", argument]).run_dir == Path(folder)


def test_a_file_without_name_takes_the_name_of_the_file(tmp_path: Path) -> None:
    unnamed = debug_text().replace("name: debug\n", "")
    assert unnamed != debug_text()
    assert load_recipe([write_recipe(tmp_path, unnamed)]).name == "mine"
    assert load_recipe([write_recipe(tmp_path, unnamed), "name=other"]).run_dir == Path("runs/other")


def test_the_run_section_may_be_left_out_and_overridden() -> None:
    assert not re.search(r"^run:", debug_text(), flags=re.M)
    assert load_recipe(["recipe=debug", "run.resume=auto"]).run.resume == "auto"


def test_integers_do_for_numbers_and_lists_become_tuples() -> None:
    recipe = load_recipe(["recipe=debug", "train.lr=1", "views.crop_scale=[1, 1]"])
    assert type(recipe.train.lr) is float
    assert recipe.views[0].crop_scale == (1.0, 1.0)
    values = list(values_below(recipe))
    foreign = {key for key in schema_keys() if key.startswith(("objective.", "views.")) and not has(recipe, key)}
    assert len(values) == len(schema_keys()) - len(foreign)
    assert len(foreign) == 10
    assert not any(isinstance(value, list) for value in values)


def test_a_recipe_is_frozen_everywhere() -> None:
    recipe = load_recipe(["recipe=debug"])
    models = [recipe, *recipe.views, *(value for value in values_below(recipe) if isinstance(value, BaseModel))]
    assert len(models) == 9
    for model in models:
        for field in type(model).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(model, field, None)


# --- the help, and where the recipes are found ------------------------------------------------------------


def test_help_shows_every_key_and_every_recipe() -> None:
    text = help_text()
    flat = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 110
    for name, path in available_recipes().items():
        what = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert f" recipe={name} {what}" in flat
    assert len(LEAVES) == 109
    for key in LEAVES:
        default = "set by the recipe" if key.default is None else f"default {key.default}"
        assert key.description
        assert f" {key.name} {key.description} [{key.expected}; {default}]" in flat
    assert flat.startswith("usage: ")
    assert "[integer >= 1 or null; default null]" in flat


def test_every_key_of_the_schema_is_found_by_name() -> None:
    assert all(find_key(name) is key for name, key in schema_keys().items())
    assert find_key("model.args.anything.below") is schema_keys()["model.args"]
    assert find_key("model.args.not a name") is None


@pytest.mark.parametrize("place", ["ssl_adapt/recipes", "recipes"], ids=["wheel", "checkout"])
def test_recipes_are_found_from_any_folder(place: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ssl_adapt", tmp_path / "ssl_adapt")
    shutil.copytree(ROOT / "recipes", tmp_path / place)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "from ssl_adapt.recipe import available_recipes, load_recipe\n"
        "print(load_recipe(['recipe=debug']).name, *available_recipes().values(), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, *paths = done.stdout.splitlines()
    assert name == "debug"
    assert paths == [str(tmp_path.resolve() / place / f"{recipe}.yaml") for recipe in SHIPPED]
    assert list(elsewhere.iterdir()) == []
