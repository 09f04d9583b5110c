"""Export: a plain or adapted network as a folder that `timm.create_model("local-dir:FOLDER")` loads, and back."""

import json
import os
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, model_args, model_name
from ssl_adapt.adaptation.edge import Adaptable
from ssl_adapt.backbones.cell_network import CellNetwork
from ssl_adapt.errors import UserError
from ssl_adapt.export.check import CONFIG, REFUSED_ARGUMENTS, WEIGHTS, check_export, check_finite
from ssl_adapt.json_text import check_plain, one_line

CARD, DRAWING = "README.md", "cells.png"  # which may lie beside the two others
_FILES = {CONFIG, WEIGHTS, CARD, DRAWING}

# The keys of timm's pretrained_cfg that describe a checkpoint, without those of its origin.
_CFG_KEYS = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "pool_size", "fixed_input_size",
             "first_conv", "classifier")  # fmt: skip


def export_timm(model: nn.Module, folder: str | Path, *, extra_args: Mapping[str, Any] | None = None) -> Path:
    """Write `config.json` and `model.safetensors`, load them with `load_export`, and return the folder.

    The network is written with its classifier (no projector, no auxiliary head), in contiguous float32, with its
    architecture as it is now, and the normalisation and size of its input (`model.pretrained_cfg`).
    A tensor that modules share is written under each of its names, as timm refuses weights that lack one.

    Args:
        model: a network that timm built; adapted ones must be fixed.
        folder: new, empty, or an earlier export, which is then replaced, its model card included.
        extra_args: the arguments that a plain timm model was created with, as it does not store them.

    Raises:
        ValueError: if the network was not built by timm, is still mixed, or can't be built again from what is written,
            or if the folder holds something else.
        RuntimeError: if the weights or the output after loading are not the same to the bit.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise UserError(f"{type(model).__name__} was not built by timm.create_model, so it can't be loaded by it")
    target = Path(folder).expanduser().resolve()
    if target.exists() and not (target.is_dir() and {path.name for path in target.iterdir()} <= _FILES):
        raise UserError(f"{folder} holds something else than an export: choose another folder, or empty it")
    network: Any = deepcopy(model).to("cpu", torch.float32).eval()  # Any: timm's contract is not in nn.Module
    if isinstance(network, CellNetwork):
        network.remove_auxiliary()
    for tensor in (*network.parameters(), *network.buffers()):
        # A clone, as contiguous() keeps the channels-last strides of 1x1 kernels, with which sums round differently.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    dropped = {*REFUSED_ARGUMENTS, "num_classes"}  # the classes are those that the network has now
    extra = {key: value for key, value in (extra_args or {}).items() if key not in dropped}
    config = _config(network, {**extra, **model_args(model)})
    check_plain(config, CONFIG)
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"its state {name!r} is a {type(value).__name__}, and an export holds tensors alone")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        # Clones, as safetensors takes no two tensors that share memory.
        save_file({name: tensor.clone() for name, tensor in state.items()}, partial / WEIGHTS)
        _check(network, config, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Path(folder)


def load_export(folder: str | Path, *, pretrained: bool = True, **arguments: Any) -> nn.Module:
    """The network that an export describes, with its weights, as `timm.create_model("local-dir:FOLDER")` gives it.

    The folder may be untrusted: before timm reads it, everything in `config.json` is checked, and the names, shapes and
    types of the weights are compared with the network, which is built without memory for that. Only JSON and
    safetensors are read, and only from the folder.

    Args:
        folder: what `export_timm` wrote, or `timm.models.save_for_hf` as safetensors.
        pretrained: False leaves the weights random.
        arguments: of `timm.create_model`: `num_classes=0`, `features_only=True`, ...

    Raises:
        ValueError: if the folder is no export, its weights are not those of the network that it describes or not
            finite, or timm does not take the arguments; the message names the folder and what is wrong.
    """
    try:
        return _load(Path(os.path.expanduser(folder)), pretrained, arguments)
    except Exception as error:  # timm and safetensors have no common class of errors
        raise UserError(f"{folder} cannot be loaded: {one_line(error)[:300]}") from error


def _load(folder: Path, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    check_export(folder)
    network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=pretrained, **arguments)
    check_finite(network)
    return network


def _config(network: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    if isinstance(network, Adaptable):
        arguments["architecture"] = Architecture.of(cast(nn.Module, network)).to_dict()
    cfg = {key: network.pretrained_cfg[key] for key in _CFG_KEYS if network.pretrained_cfg.get(key) is not None}
    if "in_chans" in arguments:
        cfg["input_size"] = (arguments["in_chans"], *cfg["input_size"][1:])
    return {
        "architecture": model_name(network),
        "num_classes": network.num_classes,
        "num_features": network.num_features,
        "model_args": arguments,
        "pretrained_cfg": {**cfg, "num_classes": network.num_classes},
    }


def _check(network: Any, config: Mapping[str, Any], folder: Path) -> None:
    try:
        with torch.random.fork_rng(devices=[]):
            loaded = _load(folder, True, {}).eval()
    except Exception as error:  # as in load_export
        hint = "" if config["model_args"] else "; if arguments built it, give them as extra_args"
        reason = f"{one_line(error)[:300]}{hint}"
        raise UserError(f"{config['architecture']} could not be loaded again: {reason}") from error
    found = loaded.state_dict()
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, found[name])]
    if changed:
        raise RuntimeError(f"the export has other weights than the network: {changed[0]!r} ({len(changed)} in all)")
    images = torch.randn(2, *config["pretrained_cfg"]["input_size"], generator=torch.Generator().manual_seed(0))
    expected, output = _output(network, images), _output(loaded, images)
    if not torch.equal(expected, output):
        difference = (expected - output).abs().max().item()
        raise RuntimeError(f"the export gives another output than the network (by up to {difference:.2g})")


@torch.no_grad()
def _output(network: nn.Module, images: Tensor) -> Tensor:
    output: Tensor = network(images)
    return output
