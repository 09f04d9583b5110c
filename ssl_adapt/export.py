"""Export: a plain or adapted backbone as a folder that `timm.create_model("local-dir:FOLDER")` loads."""

import json
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

# The keys of timm's pretrained_cfg that describe a checkpoint; where it came from is not among them.
_CFG_KEYS = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "pool_size", "fixed_input_size",
             "first_conv", "classifier")  # fmt: skip


def export_timm(model: nn.Module, folder: str | Path, *, extra_args: Mapping[str, Any] | None = None) -> Path:
    """Write `config.json` and `model.safetensors`, load them back through timm, and return the folder.

    What is written is the backbone alone (no classifier, no projector), in contiguous float32, with the
    architecture it has now and the normalisation and size of its input (`model.pretrained_cfg`).

    Args:
        model: a network that timm built; adapted ones must be fixed.
        folder: is replaced if it holds an earlier export.
        extra_args: arguments that built a network which does not know its own (a plain timm model).

    Raises:
        ValueError: if the network was not built by timm, or is still mixed.
        RuntimeError: if the features after loading are not the same to the bit.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise ValueError(f"{type(model).__name__} was not built by timm.create_model, so it can't be loaded by it")
    backbone: Any = deepcopy(model).to("cpu", torch.float32).eval()  # Any: timm's contract is not in nn.Module
    backbone.reset_classifier(0)
    for tensor in (*backbone.parameters(), *backbone.buffers()):
        # A clone, as contiguous() keeps the channels-last strides of 1x1 kernels, with which sums round differently.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    config = _config(backbone, {**(extra_args or {}), **model_args(model)})
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(
        backbone.state_dict(),
        partial / "model.safetensors",
    )
    _check(backbone, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _config(backbone: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    if isinstance(backbone, Adaptable):
        arguments["architecture"] = Architecture.of(cast(nn.Module, backbone)).to_dict()
    cfg = {key: backbone.pretrained_cfg[key] for key in _CFG_KEYS if backbone.pretrained_cfg.get(key) is not None}
    return {
        "architecture": model_name(backbone),
        "num_classes": 0,
        "num_features": backbone.num_features,
        "model_args": arguments,
        "pretrained_cfg": {**cfg, "num_classes": 0},
    }


def _check(backbone: Any, folder: Path) -> None:
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    images = torch.randn(2, *backbone.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    expected, found = _features(backbone, images), _features(loaded, images)
    if not torch.equal(expected, found):
        error = (expected - found).abs().max().item()
        raise RuntimeError(f"the export in {folder} gives other features than the network (by up to {error:.2g})")


@torch.no_grad()
def _features(model: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = model(images)
    return features
