"""Checks of untrusted export folders and architectures, before timm reads weights or allocates memory for them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from ssl_adapt.backbones.adaptable import NAME as ADAPTABLE
from ssl_adapt.backbones.genotypes import GENOTYPES
from ssl_adapt.errors import UserError
from ssl_adapt.json_text import one_line, read_json, read_text, shown

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".tar")
MAX_HEADER_BYTES = 16 * 2**20
MAX_PARAMETERS = 20_000_000_000
MAX_MODULES = 10_000  # timm's networks have up to 1,600 (one or two of each family were looked at)
MAX_SUM = 1_000_000  # of the integers among a network's arguments: its widths, depths and sizes
MAX_LIST = 1_000  # entries of a list among them
MAX_SIDE_PX = 16_384
# Arguments that make timm.create_model read files, download weights, or take memory on a device.
REFUSED_ARGUMENTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args",
                     "checkpoint_path", "cache_dir", "device")  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_OTHERS = {torch.int64: ("I64",), torch.int32: ("I32",), torch.uint8: ("U8",), torch.bool: ("BOOL",)}


class _Rule(NamedTuple):
    """The rule for a value of config.json, in words and as a function; null is always allowed."""

    expected: str
    holds: Callable[[Any], bool]


def _is_count(value: Any, largest: int = 2**31) -> bool:
    return type(value) is int and 0 <= value <= largest


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MAX_LIST and all(holds(item) for item in value)


def _is_side(value: Any) -> bool:
    return value != 0 and _is_count(value, MAX_SIDE_PX)


_ANYTHING = _Rule("anything", lambda value: True)
_TEXT = _Rule("text", lambda value: isinstance(value, str))
_MAPPING = _Rule("a mapping", lambda value: isinstance(value, dict))
_COUNT = _Rule("an integer from 0 to 2**31", _is_count)
_FLAG = _Rule("true or false", lambda value: isinstance(value, bool))
_SIZES = _Rule(f"a list of integers from 1 to {MAX_SIDE_PX}", lambda value: _is_list(value, _is_side))
_SIZE = _Rule(f"three integers from 1 to {MAX_SIDE_PX}", lambda value: _is_list(value, _is_side) and len(value) == 3)
_SHARE = _Rule("a number above 0, and at most 10", lambda value: _is_number(value) and 0 < value <= 10)
_NUMBERS = _Rule("a list of numbers", lambda value: _is_list(value, _is_number))
_POSITIVES = _Rule("a list of numbers > 0", lambda value: _is_list(value, lambda item: _is_number(item) and item > 0))
_MODULES = _Rule(
    "text or a list of it",
    lambda value: isinstance(value, str) or value == [] or _is_list(value, lambda item: isinstance(item, str)),
)
_CONFIG_RULES = {
    "architecture": _TEXT, "num_classes": _COUNT, "num_features": _COUNT, "global_pool": _TEXT, "model_args": _MAPPING,
    "pretrained_cfg": _MAPPING, "label_names": _ANYTHING, "label_descriptions": _ANYTHING,
}  # fmt: skip
# What timm.models.save_for_hf writes; the keys that say where weights come from are not among them.
_CFG_RULES = {
    "input_size": _SIZE, "test_input_size": _SIZE, "min_input_size": _SIZE, "pool_size": _SIZES,
    "test_pool_size": _SIZES, "fixed_input_size": _FLAG, "interpolation": _TEXT, "crop_mode": _TEXT,
    "crop_pct": _SHARE, "test_crop_pct": _SHARE, "mean": _NUMBERS, "std": _POSITIVES, "num_classes": _COUNT,
    "first_conv": _MODULES, "classifier": _MODULES, "label_offset": _COUNT, "tag": _TEXT,
    "custom_load": _Rule("false", lambda value: value is False),
    **dict.fromkeys(("label_names", "label_descriptions", "license", "description", "origin_url", "paper_name",
                     "paper_ids", "notes"), _ANYTHING),
}  # fmt: skip


def check_export(folder: Path) -> None:
    """Raise an error for a folder that is no export, or whose weights do not fit the network that it describes.

    Only the header of the weights is read, and the network is built without memory for its weights.

    Raises:
        ValueError: the message names what is wrong in the folder, config.json or model.safetensors.
    """
    read_config(folder)
    _compare(read_header(folder / WEIGHTS), build_on_meta(f"local-dir:{folder}", {}).state_dict())


def read_config(folder: Path) -> dict[str, Any]:
    """What an export says of its network, every value checked; its weights are not read.

    Raises:
        ValueError: as `check_export`.
    """
    _check_files(folder)
    config: dict[str, Any] = read_json(read_text(folder / CONFIG, CONFIG), CONFIG)
    _check_values(config, _CONFIG_RULES, CONFIG)
    for key in ("architecture", "pretrained_cfg"):
        if config.get(key) is None:
            raise UserError(f"{CONFIG} has no {key}: write the folder with export_timm")
    _check_values(config["pretrained_cfg"], _CFG_RULES, f"{CONFIG}'s pretrained_cfg")
    if "model_args" in config and config["model_args"] is None:
        raise UserError(f"{CONFIG}'s model_args is null, expected a mapping")
    check_arguments(config["architecture"], config.get("model_args", {}))
    return config


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise an error for a network that timm does not have, and for arguments that read files or take too much memory.

    Raises:
        ValueError: naming the network or the argument.
    """
    if not timm.is_model(name):
        raise UserError(f"there is no network {shown(name)} in timm or here: give a plain name of timm.list_models()")
    for key in REFUSED_ARGUMENTS:
        if key in arguments:
            raise UserError(f"model_args has {key!r}, which makes timm read other files or take memory: take it out")
    genotype = arguments.get("genotype")
    if isinstance(genotype, str) and genotype not in GENOTYPES:
        raise UserError(
            f"model_args has the genotype {shown(genotype)}: give its edges, or one of {', '.join(GENOTYPES)}"
        )
    _check_amount(arguments)
    if name == ADAPTABLE:
        base, base_args = arguments.get("base"), arguments.get("base_args")
        if not isinstance(base, str) or base == ADAPTABLE or not isinstance(base_args, Mapping):
            raise UserError(f"{ADAPTABLE} needs the name 'base' of a network of timm and the mapping 'base_args'")
        check_arguments(base, base_args)


def build_on_meta(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that timm builds, on the meta device, without memory for weights; random state is not changed.

    Raises:
        ValueError: it can't be built, or has more than 10,000 modules or 20 G parameters.
    """
    count = 0

    def count_module(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > MAX_MODULES:
            raise UserError(f"it has more than {MAX_MODULES:,} modules, the most that is built")

    hook = register_module_module_registration_hook(count_module)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    except Exception as error:  # wrong arguments raise any kind of error in timm's networks
        raise UserError(
            f"this network can't be built: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None
    finally:
        hook.remove()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise UserError(f"this network has {parameters:,} parameters, and at most {MAX_PARAMETERS:,} are built")
    return network


def check_finite(network: nn.Module) -> None:
    """Raise an error for weights that are not finite.

    Raises:
        ValueError: the message names the first of them, and their count.
    """
    wrong = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    if wrong:
        raise UserError(f"the weight {wrong[0]!r} is not finite ({len(wrong)} in all): train or export it again")


def _check_files(folder: Path) -> None:
    if not os.path.isdir(folder):
        raise UserError("there is no such folder")
    root = os.path.realpath(folder)
    names = sorted(os.listdir(folder))
    for name in names:
        path = folder / name
        if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != root:
            raise UserError(f"{shown(name)} is a link out of the folder: put the file itself there")
    if WEIGHTS in names:
        return
    pickles = [name for name in names if name.lower().endswith(PICKLES)]
    if pickles:
        raise UserError(
            f"its weights are in {shown(pickles[0])}, which can run code when it is read: ask for {WEIGHTS}"
        )
    raise UserError(f"it has no {WEIGHTS}: write the folder with export_timm")


def _check_values(values: Any, rules: Mapping[str, _Rule], what: str) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{what} is {shown(values)}, expected a mapping")
    for key, value in values.items():
        if key not in rules:
            raise UserError(f"{what} has the unknown key {shown(key)}: take it out")
        if value is not None and not rules[key].holds(value):
            raise UserError(f"{what} has {key}: {shown(value)}, expected {rules[key].expected}")


def _check_amount(arguments: Mapping[str, Any]) -> None:
    """Raise an error for numbers of cells or channels that would take all memory to build."""
    values = [value for key, value in arguments.items() if key not in ("architecture", "edges")]
    total = 0
    while values:
        value = values.pop()
        if isinstance(value, list | tuple) and len(value) > MAX_LIST:
            raise UserError(f"model_args has a list of {len(value):,} entries, and at most {MAX_LIST:,} are taken")
        if isinstance(value, Mapping | list | tuple):
            values += value.values() if isinstance(value, Mapping) else value
        total += abs(value) if isinstance(value, int) else 0
    if total > MAX_SUM:
        raise UserError(f"the integers in model_args add up to {shown(total)}, more than the {MAX_SUM} that is built")


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor in the file, by its name."""
    if not path.is_file():
        raise UserError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise UserError(f"{path.name} is damaged: its header would have {header_bytes:,} bytes")
    try:
        with safe_open(path, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (it has no __iter__)
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{path.name} is damaged ({one_line(error)})") from None


def _compare(found: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [name for name in expected if name in found and not _fits(*found[name], expected[name])]
    if wrong:
        (dtype, shape), tensor = found[wrong[0]], expected[wrong[0]]
        first = f"{wrong[0]!r} is {dtype} of {shape} there, and {tensor.dtype} of {tuple(tensor.shape)} in the network"
    elif missing:
        first = f"{missing[0]!r} is missing"
    elif unexpected:
        first = f"{shown(unexpected[0])} is none of the network's"
    else:
        return
    counts = f"{len(missing)} missing, {len(unexpected)} too many, {len(wrong)} of another shape or type"
    raise UserError(f"{WEIGHTS} does not fit {CONFIG}: {first} ({counts})")


def _fits(dtype: str, shape: tuple[int, ...], tensor: Tensor) -> bool:
    return shape == tuple(tensor.shape) and dtype in _OTHERS.get(tensor.dtype, _FLOATS)
