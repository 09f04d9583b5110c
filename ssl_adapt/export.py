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
from ssl_adapt.backbones.network import CellNetwork

# The keys of timm's pretrained_cfg that describe a checkpoint; where it came from is not among them.
_CFG_KEYS = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "pool_size", "fixed_input_size",
             "first_conv", "classifier")  # fmt: skip
_FILES = {"config.json", "model.safetensors"}


def export_timm(
    model: nn.Module,
    folder: str | Path,
    *,
    extra_args: Mapping[str, Any] | None = None,
    keep_classifier: bool = False,
) -> Path:
    """Write `config.json` and `model.safetensors`, load them back through timm, and return the folder.

    What is written is the backbone (no projector, no auxiliary head), in contiguous float32, with the architecture
    it has now and the normalisation and size of its input (`model.pretrained_cfg`).

    Args:
        model: a network that timm built; adapted ones must be fixed.
        folder: new, empty, or an earlier export, which is then replaced.
        extra_args: arguments that built a network which does not know its own (a plain timm model).
        keep_classifier: write the classifier too; `num_classes=0` still leaves it out when the export is loaded.

    Raises:
        ValueError: if the network was not built by timm, is still mixed, or the folder holds something else.
        RuntimeError: if the features after loading are not the same to the bit.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise ValueError(f"{type(model).__name__} was not built by timm.create_model, so it can't be loaded by it")
    target = Path(folder).expanduser().resolve()
    if target.exists() and not (target.is_dir() and {path.name for path in target.iterdir()} <= _FILES):
        raise ValueError(f"{folder} holds something else than an export: choose another folder, or empty it")
    backbone: Any = deepcopy(model).to("cpu", torch.float32).eval()  # Any: timm's contract is not in nn.Module
    if isinstance(backbone, CellNetwork):
        backbone.remove_auxiliary()
    if not keep_classifier:
        backbone.reset_classifier(0)
    for tensor in (*backbone.parameters(), *backbone.buffers()):
        # A clone, as contiguous() keeps the channels-last strides of 1x1 kernels, with which sums round differently.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    extra = {key: value for key, value in (extra_args or {}).items() if key not in ("pretrained", "checkpoint_path")}
    config = _config(backbone, {**extra, **model_args(model)})
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(backbone.state_dict(), partial / "model.safetensors")
    _check(backbone, config["pretrained_cfg"]["input_size"], partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return Path(folder)


def _config(backbone: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    if isinstance(backbone, Adaptable):
        arguments["architecture"] = Architecture.of(cast(nn.Module, backbone)).to_dict()
    cfg = {key: backbone.pretrained_cfg[key] for key in _CFG_KEYS if backbone.pretrained_cfg.get(key) is not None}
    if "in_chans" in arguments:
        cfg["input_size"] = (arguments["in_chans"], *cfg["input_size"][1:])
    return {
        "architecture": model_name(backbone),
        "num_classes": backbone.num_classes,
        "num_features": backbone.num_features,
        "model_args": arguments,
        "pretrained_cfg": {**cfg, "num_classes": backbone.num_classes},
    }


def _check(backbone: Any, input_size: tuple[int, ...], folder: Path) -> None:
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    expected, found = _features(backbone, images), _features(loaded, images)
    if not torch.equal(expected, found):
        error = (expected - found).abs().max().item()
        raise RuntimeError(f"the export in {folder} gives other features than the network (by up to {error:.2g})")


@torch.no_grad()
def _features(model: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = model(images)
    return features
