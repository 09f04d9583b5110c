"""What a trained network decides of the recipe that it is trained on by: its name, its arguments, its images."""

from collections.abc import Collection
from typing import Any

import timm

from ssl_adapt.backbones.adaptable import NAME as ADAPTABLE
from ssl_adapt.errors import UserError
from ssl_adapt.export.check import read_config
from ssl_adapt.recipe import AdaptSection, DataSection, ModelSection
from ssl_adapt.training.start_weights import find_export


def start_values(
    model: ModelSection, data: DataSection, adapt: AdaptSection | None, given: Collection[str]
) -> dict[str, Any]:
    """The values, by key, that the weights decide and that nobody has given; for `load_recipe`.

    An export says all: network, size and normalisation of the images, and the edges of a network that was adapted. timm
    knows the normalisation of its own weights; of a file of weights nothing is known.

    Args:
        model: says where the weights are.
        data: size of the images.
        adapt: how the network adapts.
        given: keys that the user gave, which are kept.

    Raises:
        ValueError: if what lies there is no export.
    """
    own = {key: value for key, value in model.args.items() if {f"model.args.{key}", "model.args"} & set(given)}
    folder = None if model.weights is None else find_export(model.weights)
    if folder is not None:
        try:
            config = read_config(folder)
        except UserError as error:
            raise UserError(f"model.weights={model.weights}: {error}") from None
        found = _values_of_export(config, own, data, given)
    elif "model.name" in given:  # the arguments of the recipe's file are those of another network
        found = {"model.args": own}
    else:
        found = {}
    if model.pretrained and (cfg := timm.get_pretrained_cfg(model.name)) is not None:
        found |= {"data.mean": [*cfg.mean], "data.std": [*cfg.std]}
        if cfg.fixed_input_size and "model.args" in found:
            found["model.args"] = {"img_size": data.image_px, **own}
    if adapt is None:
        found = {key: value for key, value in found.items() if not key.startswith("adapt.")}
    return {key: value for key, value in found.items() if key not in given}


def _values_of_export(
    config: dict[str, Any], own: dict[str, Any], data: DataSection, given: Collection[str]
) -> dict[str, Any]:
    """What `config.json` says; `own` are arguments that the user gave."""
    name, arguments, cfg = config["architecture"], dict(config.get("model_args") or {}), config["pretrained_cfg"]
    edges = (arguments.pop("architecture", None) or {}).get("edges", {})
    if name == ADAPTABLE:
        name, arguments = arguments["base"], dict(arguments["base_args"])
    arguments.pop("granularity", None)  # adapt.granularity says it, or the architecture of an adapted network
    values: dict[str, Any] = {}
    if cfg.get("input_size"):
        px = data.image_px if "data.image_px" in given else cfg["input_size"][-1]
        values["data.image_px"] = px
        is_resized = bool(cfg.get("fixed_input_size")) and px != cfg["input_size"][-1]
        arguments |= {"img_size": px} if is_resized or "img_size" in arguments else {}
    values |= {f"data.{key}": cfg[key] for key in ("mean", "std") if cfg.get(key)}
    if any(choice != "original" for choice in edges.values()):  # it keeps the edges at which it was adapted
        values |= {"adapt.granularity": None, "adapt.edges": None}
    return {**values, "model.name": name, "model.args": {**arguments, **own}}
