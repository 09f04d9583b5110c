"""The command line of the search: a recipe's keys, and those of NAT beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

from ssl_adapt.arguments import NEW_FILE, POSITIVE, TRUE_OR_FALSE, Key, one_of, read_arguments, whole_number
from ssl_adapt.nat.settings import PUBLISHED, Baseline, SearchSettings
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.recipe.keys import find_key

NAT_USAGE = """\
usage: python scripts/nat_search.py recipe=NAME genotype=FILE.json [KEY=VALUE ...]

NAT, the baseline: searches which edges of a cell should become none or skip connections. Keys of a recipe (scripts/
pretrain.py --help lists them) say which network, images, views and objective. What was found is then trained from
scratch, which costs a whole run again. It runs on the GPU if there is one.
  python scripts/nat_search.py recipe=supervised_resnet20 model.name=resnet20_nat genotype=found.json
  accelerate launch scripts/pretrain.py recipe=supervised_resnet20 model.name=resnet20_nat
      model.args.genotype=found.json adapt=null
"""
NAT_KEYS = {
    "genotype": Key(NEW_FILE, "write the genotype that was found to this JSON file", None),
    "json": Key(NEW_FILE, "write it with scores, history, seconds and settings to this file", "not written"),
    "epochs": Key(whole_number(1), "passes of the weights and of the controller", f"{PUBLISHED.epochs}"),
    "batch_size": Key(whole_number(2), "images in a batch", f"{PUBLISHED.batch_size}"),
    "channels": Key(whole_number(1), "width of the supernet", f"{PUBLISHED.channels}"),
    "cells": Key(whole_number(1), "of the supernet", f"{PUBLISHED.cells}"),
    "transforms": Key(whole_number(1), "drawn at the end; the best is kept", f"{PUBLISHED.transforms}"),
    "weight_lr": Key(POSITIVE, "learning rate of the supernet", f"{PUBLISHED.weight_lr}"),
    "controller_lr": Key(POSITIVE, "learning rate of the controller", f"{PUBLISHED.controller_lr}"),
    "baseline": Key(one_of(get_args(Baseline)), "how the mean reward is tracked", PUBLISHED.baseline),
    "self_loops": Key(TRUE_OR_FALSE, "whether the controller's nodes see themselves", "false"),
}  # fmt: skip


def read_search_arguments(arguments: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe, and the values of `NAT_KEYS` that were given.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    names = [argument.partition("=")[0] for argument in arguments]
    is_recipes = ["." in name or name == "recipe" or find_key(name) is not None for name in names]
    ours = [argument for argument, is_recipe in zip(arguments, is_recipes, strict=True) if not is_recipe]
    theirs = [argument for argument, is_recipe in zip(arguments, is_recipes, strict=True) if is_recipe]
    if not any(name.startswith("adapt") for name in names):
        theirs.append("adapt=null")  # its stages are no part of a search
    return load_recipe(theirs), read_arguments(ours, NAT_KEYS)


def create_settings(given: Mapping[str, Any]) -> SearchSettings:
    """The published settings, with the given values in place of theirs."""
    names = {field.name for field in fields(SearchSettings)}
    return replace(PUBLISHED, **{name: value for name, value in given.items() if name in names})
