"""Frozen backbones by name: the folder of a run or of an export, or any name that `timm.create_model` takes."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from ssl_adapt.errors import UserError
from ssl_adapt.export import load_export
from ssl_adapt.json_text import one_line

LOCAL, HUB = "local-dir:", "hf-hub:"
RANDOM_SEED = 0  # of the weights where none are loaded


def find_run_recipe(model: str) -> Path | None:
    """The recipe of the run where `model` is the folder of one, else None."""
    path = _folder(model) / "recipe.yaml"
    return path if os.path.isfile(path) else None


def find_network(model: str) -> str:
    """The name for `timm.create_model`: a run folder gives its export, another folder `local-dir:FOLDER`.

    Raises:
        ValueError: the run has not been exported yet, the folder is not a model's, or timm does not know the
            name; the message says what to type.
    """
    if model.startswith(HUB):
        return model
    recipe = find_run_recipe(model)
    folder = _folder(model)
    export = folder / "export" if recipe else folder
    if os.path.isfile(export / "config.json"):
        return f"{LOCAL}{export}"
    if recipe:
        raise UserError(
            f"the run in {folder} has not been exported yet: it continues with "
            f"ssl-adapt pretrain recipe={recipe} run.dir={folder} run.resume=auto"
        )
    if not model.startswith(LOCAL) and timm.is_model(model):
        return model
    if os.path.isdir(folder):
        raise UserError(f"{folder} holds neither recipe.yaml, as a run folder does, nor config.json, as an export does")
    if os.path.exists(folder):
        raise UserError(f"{folder} is a file: type the folder that holds config.json and model.safetensors")
    raise UserError(_describe_unknown(model))


def load_network(name: str, *, pretrained: bool, classifier: bool = False) -> nn.Module:
    """The backbone, on the CPU in evaluation mode: images (B, 3, H, W) -> (B, D), or logits with its `classifier`.

    An export folder may be untrusted, and goes through `load_export`. What `hf-hub:` names is downloaded and
    loaded as timm does it, so type names that you trust.

    Args:
        name: what `find_network` returned.
        pretrained: False draws the weights with seed 0; torch's global random state is not touched.
        classifier: whether it keeps the classifier that it has.

    Raises:
        ValueError: there are no weights, they can't be read or downloaded, or `load_export` refuses the folder.
    """
    arguments = {} if classifier else {"num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        if name.startswith(LOCAL):
            return load_export(_folder(name), pretrained=pretrained, **arguments).eval()
        return _load_named(name, pretrained, arguments).eval()


def input_size_px(network: nn.Module, asked_px: int | None) -> int:
    """The side in pixels of the images to feed: the one asked for, or the network's own.

    Raises:
        ValueError: the network can't take square RGB images of that size.
    """
    config = resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise UserError(f"this network takes images of {channels} channels; images are read as RGB")
    if asked_px is None and height != width:
        raise UserError(f"this network takes images of {height} x {width}; type image_px=NUMBER for square ones")
    is_fixed = getattr(network, "pretrained_cfg", {}).get("fixed_input_size", False)
    if is_fixed and asked_px not in (None, height):
        raise UserError(f"image_px={asked_px}: this network takes images of {height} px only; leave image_px out")
    return asked_px or int(height)


def has_weights(name: str) -> bool:
    """Whether timm knows where to download weights for the network of that name."""
    config = timm.models.get_pretrained_cfg(name)
    return config is not None and bool(config.has_weights)


def _folder(model: str) -> Path:
    return Path(os.path.expanduser(model.removeprefix(LOCAL)))  # os.path gives no error for a name that cannot be


def _load_named(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that timm builds by name or downloads from the hub."""
    is_plain = not name.startswith(HUB)
    try:
        if is_plain and pretrained and not has_weights(name):
            raise UserError("timm has no weights for it; type pretrained=false for random ones")
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm, the hub and safetensors have no common class of errors
        reason = one_line(error)
        if isinstance(error, OSError):
            instead = ", or pretrained=false for random weights" if is_plain else ""
            raise UserError(
                f"{name} is not in the cache and cannot be downloaded: connect to the network, or type "
                f"model=FOLDER{instead} ({reason[:200]})"
            ) from error
        raise UserError(f"{name} cannot be loaded: {reason[:300]}") from error
    return model


def _describe_unknown(model: str) -> str:
    """The error message for a name that is neither a folder nor a model of timm."""
    if model.startswith(LOCAL) or "/" in model or "\\" in model:
        hub = "" if model.startswith(LOCAL) else f"; a model of the Hugging Face hub is typed {HUB}{model}"
        return f"there is no folder {model.removeprefix(LOCAL)}{hub}"
    if os.path.isdir(Path("runs") / model):
        return f"unknown model {model!r}; did you mean runs/{model}?"
    near = difflib.get_close_matches(model, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "timm.list_models() has the names;"
    return f"unknown model {model!r}; {hint} a run or an export is given by its folder"
