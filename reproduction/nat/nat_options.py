"""The command line of the search: the keys of a recipe that it uses, and its own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from reproduction.nat.settings import PUBLISHED, Baseline, SearchSettings
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe, load_recipe
from ssl_adapt.recipe.keys import find_key, schema_keys
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import BatchSize, Count, NewFile, Positive
from ssl_adapt.recipe.yaml_text import parse_yaml


class NatOptions(Section):
    """The keys of a search beside those of its recipe."""

    genotype: NewFile = Field(description="write the genotype that was found to this JSON file")
    json_path: NewFile | None = Field(
        default=None, alias="json", description="write it with scores, history, seconds and settings to this file"
    )
    epochs: Count = Field(default=PUBLISHED.epochs, description="passes of the weights and of the controller")
    batch_size: BatchSize = Field(default=PUBLISHED.batch_size, description="images in a batch")
    channels: Count = Field(default=PUBLISHED.channels, description="width of the supernet")
    cells: Count = Field(default=PUBLISHED.cells, description="of the supernet")
    transforms: Count = Field(
        default=PUBLISHED.transforms, description="number drawn at the end, of which the best is kept"
    )
    weight_lr: Positive = Field(default=PUBLISHED.weight_lr, description="learning rate of the supernet")
    controller_lr: Positive = Field(default=PUBLISHED.controller_lr, description="learning rate of the controller")
    baseline: Baseline = Field(default=PUBLISHED.baseline, description="how the mean reward is tracked")
    self_loops: bool = Field(default=PUBLISHED.self_loops, description="whether the controller's graph has self-loops")


# Keys of a recipe that a search does not use, of the longest name that fits: why, and what to type instead.
_LEAVE_OUT = "leave it out"
_UNUSED = {
    "name": f"a search is named by its file: type genotype=NAME.json, and {_LEAVE_OUT}",
    "run": f"a search keeps its state beside genotype=FILE.json and resumes by itself: {_LEAVE_OUT}",
    "data.batch_size": "type batch_size=VALUE",
    "model.args": f"only the network's cells are used: type model.args.genotype=VALUE, or {_LEAVE_OUT}",
    "model.args.genotype": "",  # it has an effect
    "model.args.channels": "the supernet has its own width: type channels=VALUE",
    "model.args.cells": "the supernet has its own depth: type cells=VALUE",
    "model.pretrained": f"the supernet has weights of its own: {_LEAVE_OUT}",
    "model.weights": f"the supernet has weights of its own: {_LEAVE_OUT}",
    "model.classifier": f"the supernet has weights of its own: {_LEAVE_OUT}",
    "objective.auxiliary_weight": f"the supernet has no auxiliary head: {_LEAVE_OUT}",
    "train": f"the weights are trained as NAT was published, but for weight_lr=VALUE and epochs=VALUE: {_LEAVE_OUT}",
    "train.epochs": "type epochs=VALUE",
    "train.max_steps": "type epochs=VALUE, and epochs=1 for a trial",
    "train.lr": "type weight_lr=VALUE",
    "adapt": f"a search has no theta: {_LEAVE_OUT}",
    "knn": f"genotypes are evaluated on the controller's images: {_LEAVE_OUT}",
}  # fmt: skip


def read_search_arguments(arguments: Sequence[str]) -> tuple[Recipe, NatOptions]:
    """The recipe of the search, and its other options.

    Raises:
        ValueError: an argument is wrong; the message says what to type.
    """
    names = [argument.partition("=")[0] for argument in arguments]
    is_recipes = ["." in name or name == "recipe" or find_key(name) is not None for name in names]
    ours = [argument for argument, is_recipe in zip(arguments, is_recipes, strict=True) if not is_recipe]
    theirs = [argument for argument, is_recipe in zip(arguments, is_recipes, strict=True) if is_recipe]
    given = (argument.partition("=") for argument in theirs)
    keys = [key for name, _, text in given for key in _keys_in(name, _value(text))]
    if problems := [f"{key} has no effect on a search: {why}" for key in keys if (why := why_unused(key))]:
        raise UserError("\n".join(problems))
    if "adapt" not in names:
        theirs.append("adapt=null")  # its stages are no part of a search
    return load_recipe(theirs), read_options(NatOptions, ours)


def why_unused(key: str) -> str:
    """Why a recipe's key, given by its dotted name, has no effect on a search, and what to type; "" if it has one."""
    parts = key.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((_UNUSED[name] for name in names if name in _UNUSED), "")


def _keys_in(name: str, value: Any) -> Iterator[str]:
    """The keys that name=value sets: for a section all keys in it, for adapt=null none."""
    key = schema_keys().get(name)
    if key is None or not (key.is_section or key.is_open):
        yield name
    elif isinstance(value, dict):
        for inner, inner_value in value.items():
            yield from _keys_in(f"{name}.{inner}", inner_value)


def _value(text: str) -> Any:
    """The value of an argument; None if it is not YAML, which the reading of the recipe reports."""
    try:
        return parse_yaml(text)
    except ValueError:
        return None


def state_folder(genotype: Path) -> Path:
    """The folder, beside the file, in which a search that writes it keeps its state."""
    return genotype.with_name(f"{genotype.name}.search")


def create_settings(options: NatOptions) -> SearchSettings:
    """The published settings, with the options replacing theirs."""
    return replace(PUBLISHED, **options.model_dump(exclude={"genotype", "json_path"}))
