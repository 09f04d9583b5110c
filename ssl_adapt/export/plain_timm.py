"""Adapted networks of timm as plain ones, which load without this package: timm's own arguments leave out blocks."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import Architecture, model_args, model_name
from ssl_adapt.adaptation.edge import Choice
from ssl_adapt.backbones.adaptable import NAME as ADAPTABLE
from ssl_adapt.errors import UserError
from ssl_adapt.export.check import build_on_meta

DEPTHS = ("depth", "depths", "layers", "num_blocks")  # timm's names for the number of blocks, of a stage or in all


def plain_timm(model: nn.Module, extra_args: Mapping[str, Any] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network that timm alone builds, of the same outputs to the bit, and the arguments that build it.

    A block that became the identity, or whose branches all became zero, is left out: the blocks after it are
    renumbered, and the argument of timm that says how many there are is lowered. With `drop_path_rate`, training on
    spreads the rate over the blocks that are left.

    Args:
        model: plain or fixed; it is not changed.
        extra_args: the arguments that built it, where it is a plain network of timm, which does not store them.

    Raises:
        ValueError: if timm can't build it alone; the message says why, and begins with a name.
    """
    name = model_name(model)
    if name != ADAPTABLE:
        if not is_timm_s_own(name):
            raise UserError(f"{name} is a network of ssl_adapt")
        return model, dict(extra_args or {})
    arguments = model_args(model)
    base, base_args = arguments["base"], dict(arguments["base_args"])
    if not is_timm_s_own(base):
        raise UserError(f"{base} is no network of timm's own")
    removed = removed_blocks(Architecture.of(model).changed, [edge["name"] for edge in arguments["edges"]])
    names = _new_names(model, removed)
    state = {new: value for old, value in model.state_dict().items() if (new := names[old]) is not None}
    args = _find_arguments(model, base, base_args, removed, state)
    with torch.random.fork_rng(devices=[]):
        plain: nn.Module = timm.create_model(base, pretrained=False, **_shape_of(model), **args)
    plain.load_state_dict(state)
    cfg = {**cast(Mapping[str, Any], model.pretrained_cfg), "architecture": base}
    plain.pretrained_cfg = plain.default_cfg = cfg  # type: ignore[assignment]
    plain.train(model.training)
    _check_outputs(model, plain, cfg["input_size"], removed)
    return plain, args


def removed_blocks(changed: Mapping[str, Choice], edges: list[str]) -> list[str]:
    """The paths of the blocks that are gone as a whole: they are the identity, or all of their branches give zeros.

    Raises:
        ValueError: if only a part of a block is gone.
    """
    removed: list[str] = []
    for edge, choice in changed.items():
        block = edge if choice == "identity" else edge.rpartition(".")[0]
        left = [other for other in edges if other.startswith(f"{block}.") and changed.get(other) != "none"]
        if choice == "none" and (left or edge.rpartition(".")[2].isdigit()):
            raise UserError(f"{edge} gives zeros{', and ' + left[0] + ' is left' if left else ''}")
        if block not in removed:
            removed.append(block)
    return removed


def is_timm_s_own(name: str) -> bool:
    """Whether timm alone builds the network of that name."""
    return timm.is_model(name) and timm.model_entrypoint(name).__module__.startswith("timm.")


def _shape_of(model: Any) -> dict[str, Any]:
    """Classes and channels, which an architecture does not have among its arguments."""
    channels = model.pretrained_cfg["input_size"][0]
    return {"num_classes": model.num_classes, **({} if channels == 3 else {"in_chans": channels})}


def _new_names(model: nn.Module, removed: list[str]) -> dict[str, str | None]:
    """The new name of each tensor; None where its block is gone."""
    prefixes: list[tuple[str, str | None]] = []
    for container in dict.fromkeys(block.rpartition(".")[0] for block in removed):
        left = 0
        for child, _ in model.get_submodule(container).named_children():
            block = f"{container}.{child}"
            if not child.isdigit():
                raise UserError(
                    f"timm has no argument that leaves out {next(b for b in removed if b.startswith(container))}"
                )
            prefixes.append((f"{block}.", None if block in removed else f"{container}.{left}."))
            left += block not in removed

    def renamed(name: str) -> str | None:
        for old, new in prefixes:
            if name.startswith(old):
                return None if new is None else new + name.removeprefix(old)
        return name

    return {name: renamed(name) for name in model.state_dict()}


def _find_arguments(
    model: nn.Module, base: str, base_args: dict[str, Any], removed: list[str], state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The arguments of a network with these tensors."""
    shapes = {name: value.shape for name, value in state.items()}
    counts = _block_counts(model, removed)
    tries = [{**base_args, key: counts} for key in DEPTHS] if removed else [base_args]
    for args in tries:
        try:
            found = build_on_meta(base, {**_shape_of(model), **args})
        except UserError:  # it has no such argument
            continue
        if {name: value.shape for name, value in found.state_dict().items()} == shapes:
            return args
    raise UserError(f"timm's {base} has no argument that leaves out {', '.join(removed)}")


def _block_counts(model: nn.Module, removed: list[str]) -> int | list[int] | None:
    """How many blocks are left, of each stage where there are several."""
    if not removed:
        return None
    containers = {block.rpartition(".")[0] for block in removed}
    pattern = re.sub(r"\d+", r"\\d+", re.escape(min(containers)))
    stages = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    left = [
        sum(f"{stage}.{child}" not in removed for child, _ in model.get_submodule(stage).named_children())
        for stage in stages
    ]
    return left if r"\d" in pattern else left[0]


@torch.no_grad()
def _check_outputs(model: nn.Module, plain: nn.Module, input_size: tuple[int, ...], removed: list[str]) -> None:
    weight = next(plain.parameters())
    images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    before, after = (deepcopy(network).to("cpu").eval()(images) for network in (model, plain))
    if not torch.equal(before, after):
        raise UserError(f"timm's network computes something else without {', '.join(removed)}")
