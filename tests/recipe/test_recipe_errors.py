"""Recipes: how wrong arguments, files and values are refused."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from recipe_files import SHIPPED, debug_text, problems_of, write_recipe

from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.recipe.keys import schema_keys
from ssl_adapt.recipe.yaml_text import dump_yaml, parse_yaml

AVAILABLE = f"available: {', '.join(SHIPPED)}"
ONE_PROBLEM = [
    (
        ["recipe=simclr_resnet5"],
        f"unknown recipe 'simclr_resnet5'; did you mean 'simclr_resnet50'? {AVAILABLE}",
    ),
    (["recipe=zzz"], f"unknown recipe 'zzz'; {AVAILABLE}"),
    (["recipe=no/debug.yaml"], f"recipe file not found: 'no/debug.yaml'; did you mean 'debug'? {AVAILABLE}"),
    ([], f"no recipe given: add recipe=NAME or recipe=PATH; {AVAILABLE}"),
    (
        ["recipe=debug", "quick"],
        "argument 'quick' has no '=': type recipe=NAME or key=value; --help lists the keys",
    ),
    (["recipe=debug", "seed=1", "seed=1"], "'seed' is given twice: keep one of them"),
    (["recipe=debug", "recipe=quickstart"], "'recipe' is given twice: keep one of them"),
    (
        ["recipe=debug", "adapt.epochs=3", "adapt=null"],
        "'adapt' and 'adapt.epochs' are given together, and the first contains the second: keep one of them",
    ),
    (["recipe=debug", "train.epoch=3"], "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
    (["recipe=debug", "--train.epochs=3"], "unknown key '--train.epochs'; did you mean 'train.epochs'?"),
    (["recipe=debug", "lr=3"], "unknown key 'lr'; did you mean 'train.lr'?"),
    (["recipe=debug", "epochs=3"], "unknown key 'epochs'; did you mean 'train.epochs' or 'adapt.epochs'?"),
    (["recipe=debug", "qqq=3"], "unknown key 'qqq'; --help lists the keys"),
    (["recipe=debug", "data.root.x=3"], "unknown key 'data.root.x'; did you mean 'data.root'?"),
    (["recipe=debug", "model.args.=3"], "unknown key 'model.args.'; did you mean 'model.args'?"),
    (["recipe=debug", "train.epochs=three"], "train.epochs: got 'three', expected integer >= 1"),
    (["recipe=debug", "train.epochs='3'"], "train.epochs: got '3', expected integer >= 1"),
    (["recipe=debug", "train.epochs=3.0"], "train.epochs: got 3.0, expected integer >= 1"),
    (["recipe=debug", "train.lr=true"], "train.lr: got true, expected number > 0"),
    (["recipe=debug", "train.lr=.inf"], "train.lr: got inf, expected number > 0"),
    (["recipe=debug", f"train.lr={'x' * 99}"], f"train.lr: got '{'x' * 56}..., expected number > 0"),
    (["recipe=debug", "train.lr="], "train.lr: got null, expected number > 0"),
    (["recipe=debug", "views.antialias=1"], "views.antialias: got 1, expected true or false"),
    (["recipe=debug", "views.antialias=yes"], "views.antialias: got 'yes', expected true or false"),
    (["recipe=debug", "data.root=3"], "data.root: got 3, expected text or null"),
    (
        ["recipe=debug", "model=resnet50"],
        "model: got 'resnet50', expected section with the keys (name, args, pretrained, weights, classifier)",
    ),
    (
        ["recipe=debug", "adapt.sharing=ful"],
        "adapt.sharing: got 'ful', expected full | cell; did you mean 'full'?",
    ),
    (
        ["recipe=debug", "run.trackers=[tensorbord]"],
        "run.trackers: got ['tensorbord'], expected list of tensorboard, wandb, mlflow, trackio; may be empty",
    ),
    (
        ["recipe=debug", "model.args.width.x=3"],
        "model.args.width.x cannot be set: recipe 'debug' has model.args.width: 8",
    ),
    (
        ["recipe=debug", "model.args.x=[.nan]", "model.args.width=8"],
        "model.args: got {'width': 8, 'x': [nan]}, expected mapping of names to plain values; may be empty",
    ),
    (
        ["recipe=debug", "train.lr=[1"],
        "train.lr: '[1' is not a YAML value: expected ',' or ']', but got '<stream end>' (line 1, column 3); "
        "quotes make it text: train.lr=\"'...'\"",
    ),
    (
        ["recipe=debug", "data.name=folder"],
        "data.name=folder needs to know where the images are: add data.root=PATH, a folder of images or a tar of one",
    ),
    (
        ["recipe=debug", "train.optimizer=sgd"],
        "train.optimizer=sgd needs a momentum: add train.momentum=0.9, or 0 for none",
    ),
    (
        ["recipe=debug", "train.momentum=0.9"],
        "train.momentum=0.9 has no meaning for train.optimizer=adamw: set train.momentum=null or train.optimizer=sgd",
    ),
    (
        ["recipe=debug", "train.optimizer=lamb", "train.exclude_norm_and_bias=true", "train.shard_weights=true"],
        "train.shard_weights=true was not tried with train.optimizer=lamb, which needs the norms of whole weights: "
        "set it to false",
    ),
    (
        ["recipe=debug", "train.optimizer=lars"],
        "train.optimizer=lars needs a momentum: add train.momentum=0.9, or 0 for none",
    ),
    (
        ["recipe=debug", "train.optimizer=lamb"],
        "train.optimizer=lamb needs to know whether norms and biases are excluded from decay and scaling: "
        "add train.exclude_norm_and_bias=true, as is usual, or false",
    ),
    (
        ["recipe=debug", "train.optimizer=lamb", "train.exclude_norm_and_bias=true", "train.weight_decay=0"],
        "train.optimizer=lamb scales the steps of weights that decay, so with train.weight_decay=0 none: "
        "set it above 0, to 1e-6, say",
    ),
    (
        ["recipe=debug", "train.layer_decay=1"],
        "train.layer_decay: got 1, expected number above 0 and below 1 or null",
    ),
    (
        ["recipe=debug", "train.epochs=2", "adapt.epochs=3"],
        "adapt.epochs=3 does not fit into train.epochs=2: lower adapt.epochs or raise train.epochs",
    ),
    (
        ["recipe=debug", "train.epochs=3", "adapt.epochs=2", "adapt.mode=anneal", "adapt.anneal_epochs=2"],
        "adapt.epochs=2 with adapt.anneal_epochs=2 does not fit into train.epochs=3: "
        "lower adapt.epochs or raise train.epochs",
    ),
    (
        ["recipe=debug", "adapt.mode=anneal"],
        "adapt.mode=anneal needs epochs to anneal in: set adapt.anneal_epochs=1 or more, or adapt.mode=hard",
    ),
    (
        ["recipe=debug", "adapt.anneal_epochs=1"],
        "adapt.anneal_epochs=1 has no meaning for adapt.mode=hard: set adapt.anneal_epochs=0 or adapt.mode=anneal",
    ),
    (
        ["recipe=debug", "train.epochs=2", "train.warmup_epochs=3"],
        "train.warmup_epochs=3 is longer than train.epochs=2: lower train.warmup_epochs or raise train.epochs",
    ),
    (
        ["recipe=debug", "train.epochs=2", "run.stop_after_epochs=3"],
        "run.stop_after_epochs=3 is beyond train.epochs=2: set it to 2 or less, or to null",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ONE_PROBLEM, ids=lambda value: str(value)[:50])
def test_one_problem_gives_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_of(*arguments) == [message]
    assert list(tmp_path.iterdir()) == [], "an error comes before anything is created"


@pytest.mark.parametrize(
    "argument",
    [
        "name=a/b", "name=..", "name=''", "seed=-1", f"seed={2**32}", "run.dir=''", "run.resume=always",
        "run.stop_after_epochs=0", "run.checkpoint_every_epochs=0", "data.image_px=0", "data.batch_size=1",
        "data.workers=-1", "data.mean=[0, 0]", "data.mean=[0, 0, 1.1]", "data.std=[1, 1, 0]",
        "views.crop_scale=[0, 1]", "views.crop_scale=[0.5, 1.1]", "views.crop_scale=[0.9, 0.5]",
        "views.crop_scale=[0.5]", "views.crop_scale=0.5", "views.crop_ratio=[2, 1]",
        "views.crop_ratio=[0, 1]", "views.flip_p=1.1", "views.flip_p=-0.1",
        "views.jitter=[1, 1, 1, 0.6]", "views.jitter=[1, 1, -1, 0]",
        "views.jitter=[1, 1, 1, 0, 0]", "views.jitter_p=2", "views.grayscale_p=2", "model.name=''",
        "model.args=[1]", "model.args={a: {1: 2}}", "objective.name=simcl", "objective.temperature=0",
        "objective.projector_hidden=0", "objective.projector_out=0", "objective.view_forward=both",
        "train.epochs=0", "train.max_steps=0", "train.lr=0", "train.momentum=1", "train.weight_decay=-1",
        "train.schedule=step", "train.warmup_epochs=-1", "train.clip_grad_norm=0", "train.precision=float16",
        "adapt.epochs=0", "adapt.theta_lr=0", "adapt.theta_betas=[0.5, 1]", "adapt.theta_weight_decay=-1",
        "adapt.theta_batch=other", "adapt.shape_change=crop", "adapt.none_rule=never",
        "adapt.none_threshold=.nan", "adapt.scale=two", "knn.every_epochs=-1", "knn.k=0", "knn.temperature=0",
        "knn.weighting=mean", "knn.layer=logits",
    ],
)  # fmt: skip
def test_a_value_out_of_range_names_its_key_and_what_is_expected(argument: str) -> None:
    name = argument.partition("=")[0]
    [problem] = problems_of("recipe=debug", argument)
    assert problem.startswith(f"{name}: ")
    if "not a YAML value" not in problem:
        assert f", expected {schema_keys()[name].expected}" in problem


def test_adapt_keys_cannot_be_set_where_the_recipe_does_not_adapt(tmp_path: Path) -> None:
    path = tmp_path / "original.yaml"
    save_recipe(load_recipe(["recipe=debug", "adapt=null"]), path)
    [problem] = problems_of(f"recipe={path}", "adapt.epochs=3")
    reason = f"adapt.epochs cannot be set: recipe '{path}' has adapt: null (the original network)"
    assert problem.startswith(f"{reason}; take a recipe that adapts, such as quickstart, or give all keys at once")


def test_several_problems_give_a_line_each() -> None:
    assert problems_of("recipe=debug", "train.lr=-1", "knn.k=many", "views.flip_p=7") == [
        "views.flip_p: got 7, expected number from 0 to 1",
        "train.lr: got -1, expected number > 0",
        "knn.k: got 'many', expected integer >= 1",
    ]
    assert len(problems_of("x", "lr=1", "seed=1", "seed=2")) == 4
    assert len(problems_of("recipe=debug", "seed=[", "train.lr={")) == 2
    between_keys = ("train.optimizer=sgd", "adapt.mode=anneal", "data.name=folder")
    assert len(problems_of("recipe=debug", *between_keys)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "must hold 'key: value' lines, got null"),
        (lambda text: "- 1\n", "must hold 'key: value' lines, got [1]"),
        (lambda text: text + "  k: 20\n", "is not valid YAML: the key 'k' is there twice (line "),
        (lambda text: text + "other: &a 1\nsame: *a\n", "is not valid YAML: aliases are not used in recipes"),
        (lambda text: text + "other: !!set {}\n", "is not valid YAML: tags are not used in recipes"),
        (lambda text: text + "1: 2\n", "is not valid YAML: a key must be text"),
        (lambda text: text + "  kk: 2\n", "unknown key 'knn.kk'; did you mean 'knn.k'?"),
        (lambda text: text + "\tx\n", "is not valid YAML: "),
        (lambda text: text + "\x00", "is not valid YAML: special characters are not allowed (at position "),
        (lambda text: text + "x: " + "[" * 1000, "is not valid YAML: nested too deeply"),
        (lambda text: "[" * 2**20, "is not valid YAML: nested too deeply (line 1, column 33)"),
        (lambda text: "- " * 2**19, "is not valid YAML: nested too deeply"),
        (lambda text: text + "#" * 2**20, "is larger than 1 MiB"),
        (lambda text: text + "x: " + "9" * 5000, "is not valid YAML: an integer has more than 4,300 digits, or"),
        (lambda text: text + 'x: "\\UFFFFFFFF"', "is not valid YAML: an integer has more than 4,300 digits, or an"),
        (lambda text: text + '"\\ud800": 1', "is not valid YAML: an escape gives half of a surrogate pair"),
        (lambda text: text + f"? '{'x' * 10**6}'\n: 1\n", "unknown key 'xxxx"),
        (
            lambda text: re.sub(r"  lr:.*\n", "", text),
            "has no train.lr; add train.lr=VALUE (number > 0): peak learning rate of the weights",
        ),
        (
            lambda text: re.sub(r"\n  jitter_p:.*", "", text),
            "has no views.jitter_p; add views.jitter_p=VALUE (number from 0 to 1): resized_crop: probability of the",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_named(change: Any, message: str, tmp_path: Path) -> None:
    [problem] = problems_of(write_recipe(tmp_path, change(debug_text())))
    assert message in problem
    assert f"'{tmp_path}/mine.yaml' " in problem or "unknown key" in problem


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff")
    [problem] = problems_of(f"recipe={path}")
    assert problem.endswith("is not text in UTF-8")


def test_folders_and_pipes_are_no_recipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    instead = "type recipe=NAME or the path of a YAML file"
    for path in (tmp_path, tmp_path / "pipe.yaml", Path("/dev/zero")):
        assert problems_of(f"recipe={path}") == [f"recipe '{path}' is not a regular file: {instead}"]
    write_recipe(tmp_path, debug_text(), "recipe.yaml")
    [problem] = problems_of(f"recipe={tmp_path}")
    assert problem.endswith(f": type recipe={tmp_path}/recipe.yaml")


def test_of_very_many_problems_the_first_are_listed(tmp_path: Path) -> None:
    text = debug_text() + "".join(f"key{number}: 1\n" for number in range(5000))
    problems = problems_of(write_recipe(tmp_path, text))
    assert len(problems) == 101
    assert problems[-1] == "there are 4,900 more problems: correct these first"


def test_every_key_is_required_but_for_those_with_a_default(tmp_path: Path) -> None:
    values = load_recipe(["recipe=debug"]).model_dump()
    seen = Counter[bool]()
    for key in schema_keys().values():
        *parents, leaf = key.name.split(".")
        fewer = parse_yaml(dump_yaml(values))
        section = fewer[parents[0]] if parents else fewer
        if leaf not in section or key.name == "knn":  # of another objective or view
            continue
        del section[leaf]
        argument = write_recipe(tmp_path, dump_yaml(fewer))
        seen[key.default is None] += 1
        if key.default is None:
            [problem] = problems_of(argument)
            assert f"has no {key.name}; add {key.name}=VALUE" in problem
        else:
            load_recipe([argument])
    assert seen == {True: 45, False: 61}
