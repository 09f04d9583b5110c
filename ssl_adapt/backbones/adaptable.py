"""Edges for any network of timm: `adaptable(model)` finds the submodules that keep their input's shape."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import timm
import torch
from timm.models import build_model_with_cfg, is_model, register_model
from timm.models._features import FeatureGetterNet
from torch import nn

from ssl_adapt.adaptation.architecture import Architecture, apply_architecture, check_edge_names, model_name
from ssl_adapt.adaptation.edge import EdgeSpec, MixedEdge
from ssl_adapt.backbones.adaptable_probe import EdgeRow, Probe, matches
from ssl_adapt.backbones.residual_branches import find_branches
from ssl_adapt.errors import UserError

# The repeated blocks of timm's families, in the order in which they are tried. Digits keep the parts of a block out.
# For the residual branches of a transformer's block give edges=["blocks.*.attn", "blocks.*.mlp"].
DEFAULT_EDGES = (
    "layer[0-9].[0-9]*",  # ResNet, Res2Net, ResNeSt
    "stages.*.blocks.*",  # ConvNeXt, MetaFormer, PVT, MaxViT, LeViT, EfficientFormer
    "layers.*.blocks.*",  # Swin, FocalNet
    "stages.[0-9]*.[0-9]*",  # NFNet, RepVGG, StarNet, MobileViT
    "s[0-9].b[0-9]*",  # RegNet
    "blocks.[0-9]*.[0-9]*",  # EfficientNet, MobileNet, MNASNet, GhostNet, Twins
    "blocks.*",  # ViT, DeiT, BEiT, EVA, Mixer, ResMLP, Hiera
    "levels.*.transformer_encoder.*",  # NesT
    "network.[0-9]*.[0-9]*",  # VOLO
    "serial_blocks*.*",  # CoaT
    "stage[0-9].[0-9]*",  # Visformer
    "level[0-9].tree[0-9]",  # DLA
    "features.[0-9]*",  # VGG
)
NAME = "adaptable_timm"
Granularity = Literal["block", "branch"]


@dataclass(frozen=True)
class _DeclaredEdges:
    """What `edge_specs` is on a network that was made adaptable: a function that can be copied and pickled."""

    specs: tuple[EdgeSpec, ...]

    def __call__(self) -> tuple[EdgeSpec, ...]:
        return self.specs


def adaptable(
    model: nn.Module,
    edges: str | Sequence[str] | None = None,
    *,
    granularity: Granularity = "block",
    model_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The same network, which now declares as edges its submodules that the identity can replace.

    A dry run on two random images finds the submodules that are called once, keep the shape of their input and leave
    it as it is; two more runs for each tell whether the network works with the identity and with zero in their place.
    `model.edge_report` has a row for every submodule looked at; `describe_edges(model)` is the same as a table.

    Args:
        model: a network that timm built; it gets attributes, no module of it changes.
        edges: globs over module names, segment by segment: "stages.*.blocks.*"; `**` is any number of segments.
            None tries `DEFAULT_EDGES` one after the other.
        granularity: "block" takes the modules that `edges` names; "branch" finds the residual branches itself, see
            `find_branches`: a branch may become zero, or a block its input, and nothing else may change.
        model_args: the arguments beside its name that built the network; None takes those that timm noted.

    Raises:
        ValueError: if the network has edges already or was not built by timm, the arguments don't build it again, or
            no submodule can be an edge.
    """
    if granularity not in get_args(Granularity):
        raise UserError(f"granularity={granularity!r} is not one of {', '.join(get_args(Granularity))}")
    if granularity == "branch" and edges is not None:
        raise UserError(f"granularity='branch' finds the edges itself: leave out edges={edges!r}, or granularity")
    if hasattr(model, "edge_specs") or any(isinstance(module, MixedEdge) for module in model.modules()):
        raise UserError(f"{model_name(model)} has edges already; give it to Adaptation as it is")
    cfg, base = dict(getattr(model, "pretrained_cfg", None) or {}), model_name(model)
    if not cfg or not is_model(base):
        raise UserError(f"{base} was not built by timm.create_model; build it so, or declare edge_specs() yourself")
    arguments = _base_arguments(model, base, model_args)
    channels, *size = _input_size(cfg["input_size"], arguments)
    cfg["input_size"] = (getattr(model, "in_chans", None) or channels, *size)
    if granularity == "branch":
        report = _find_branch_edges(model, base, arguments, cfg["input_size"])
    else:
        report = _find_edges(model, cfg["input_size"], edges)
    _declare(model, [row for row in report if row.taken], report, base, arguments)
    model.pretrained_cfg = model.default_cfg = {**deepcopy(cfg), "architecture": NAME}  # type: ignore[assignment]
    return model


def describe_edges(model: nn.Module) -> str:
    """A table, as text, of the submodules that `adaptable` looked at.

    Raises:
        ValueError: if the network did not come from `adaptable`.
    """
    if not hasattr(model, "edge_report"):
        raise UserError(f"{type(model).__name__} has no edge_report; call adaptable(model) first")
    rows = cast(tuple[EdgeRow, ...], model.edge_report)
    table = [("module", "edge", "candidates", "reason")]
    table += [(row.name, "yes" if row.taken else "no", " ".join(row.candidates), row.reason) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]]) for line in table
    )


@register_model
def adaptable_timm(
    pretrained: bool = False,
    *,
    base: str,
    base_args: Mapping[str, Any],
    edges: Sequence[Mapping[str, Any]],
    architecture: Architecture | Mapping[str, Any] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    feature_cls: str = "getter",
    **kwargs: Any,
) -> nn.Module:
    """The network of timm called `base` with the edges that `adaptable` found, for loading what was exported.

    Args:
        pretrained: load the weights that lie beside the configuration.
        base: name of the network.
        base_args: its arguments.
        edges: name, channels and candidates of each edge.
        architecture: the choices to apply; None is the plain network.
        features_only: give the feature maps of `forward_intermediates`.
        out_indices: which of them; None is the last five, or all if there are fewer.
        feature_cls: timm's name of what gives them; "getter" is the only one.
        kwargs: further arguments of `timm.create_model`.

    Raises:
        ValueError: for another `feature_cls`.
    """
    if feature_cls != "getter":
        raise UserError(f"feature_cls={feature_cls!r}: a network with edges has 'getter' alone; leave it out")

    def create(**arguments: Any) -> nn.Module:
        model: nn.Module = timm.create_model(base, pretrained=False, **{**base_args, **arguments})
        check_edge_names((edge["name"] for edge in edges), (name for name, _ in model.named_modules()))
        rows = [EdgeRow(e["name"], True, "recorded", e["channels"], tuple(e["candidates"])) for e in edges]
        _declare(model, rows, rows, base, base_args)
        if architecture is not None:
            ready = architecture if isinstance(architecture, Architecture) else Architecture.from_dict(architecture)
            apply_architecture(model, ready)
        return model

    if kwargs.get("pretrained_cfg") is None:
        cfg: Any = timm.get_pretrained_cfg(base)
        own = {"architecture": NAME, "url": "", "hf_hub_id": None, "file": None}
        kwargs["pretrained_cfg"] = {**cfg.to_dict(), **own, "input_size": _input_size(cfg.input_size, base_args)}
    model: nn.Module = build_model_with_cfg(create, NAME, pretrained, **kwargs)
    if not features_only:
        return model
    feature_info = cast(Sequence[Any], model.feature_info)
    chosen: Any = min(5, len(feature_info)) if out_indices is None else out_indices
    features = FeatureGetterNet(model, out_indices=chosen)
    features.pretrained_cfg = features.default_cfg = model.pretrained_cfg
    return cast(nn.Module, features)


def _input_size(size: Sequence[int], arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width: those of a configuration, at the size that the arguments ask for."""
    image_px = arguments.get("img_size", size[1:])
    height, width = (image_px, image_px) if isinstance(image_px, int) else image_px
    return size[0], height, width


def _base_arguments(model: nn.Module, base: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments that build the network again, as JSON values; classes and channels are in its configuration."""
    noted = cast(Mapping[str, Any], getattr(model, "_model_args", {})) if given is None else given
    dropped = {"pretrained", "checkpoint_path", "num_classes", "in_chans"}
    arguments = {key: value for key, value in noted.items() if key not in dropped}
    hint = 'pass those that built it, say model_args={"img_size": 64}'
    try:
        arguments = json.loads(json.dumps(arguments))
    except TypeError as error:
        raise UserError(f"the arguments of {base} can't be written as JSON ({error}): {hint}") from None
    again = _create_again(model, base, arguments, "meta")
    difference = _first_difference(model.state_dict(), again.state_dict())
    if difference:
        raise UserError(f"model_args={arguments} build another {base} than this one ('{difference}' differs): {hint}")
    return cast(dict[str, Any], arguments)


def _create_again(model: nn.Module, base: str, arguments: Mapping[str, Any], device: str) -> nn.Module:
    shape = {"num_classes": getattr(model, "num_classes", None), "in_chans": getattr(model, "in_chans", None)}
    with torch.random.fork_rng([]), torch.device(device):
        again: nn.Module = timm.create_model(base, pretrained=False, **{**shape, **arguments})
    return again


def _first_difference(state: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> str | None:
    shapes, others = ({name: value.shape for name, value in tensors.items()} for tensors in (state, other))
    return next((name for name in {**shapes, **others} if shapes.get(name) != others.get(name)), None)


def _find_edges(model: nn.Module, input_size: Sequence[int], edges: str | Sequence[str] | None) -> tuple[EdgeRow, ...]:
    names = [name for name, _ in model.named_modules() if name]
    globs = DEFAULT_EDGES if edges is None else [edges] if isinstance(edges, str) else list(edges)
    attempts = [[glob] for glob in globs] if edges is None else [globs]
    probe = Probe(model, input_size)
    refused: list[EdgeRow] = []
    for attempt in attempts:
        matched = [name for name in names if any(matches(name, glob) for glob in attempt)]
        report = probe.judge(matched)
        if any(row.taken for row in report):
            return tuple(report)
        refused += report
    raise UserError(_no_edges(names, globs, refused))


def _find_branch_edges(
    model: nn.Module, base: str, arguments: Mapping[str, Any], input_size: Sequence[int]
) -> tuple[EdgeRow, ...]:
    weight = next(model.parameters())
    real = _create_again(model, base, arguments, "cpu") if weight.is_meta else model  # zeros need values
    weight = next(real.parameters())
    with torch.device("cpu"):  # whatever device the caller has made the default
        images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    with weight.device:
        branches = find_branches(real, images.to(weight.device, weight.dtype))
    rows = []
    for row in Probe(model, input_size).judge(branches):
        candidates = tuple(choice for choice in row.candidates if choice in branches[row.name])
        rows.append(replace(row, taken=len(candidates) > 1, candidates=candidates))
    if not any(row.taken for row in rows):
        raise UserError(f"{base} has no residual branch that can be removed: use granularity='block'")
    return tuple(rows)


def _no_edges(names: Sequence[str], globs: Sequence[str], refused: Sequence[EdgeRow]) -> str:
    if refused:
        examples = "; ".join(f"'{row.name}': {row.reason}" for row in refused[:3])
        return f"none of the {len(refused)} modules that match {', '.join(globs)} can be an edge ({examples})"
    repeated = list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names if re.search(r"\d", name)))
    near = [name for glob in globs for name in difflib.get_close_matches(glob, [*repeated, *names], n=3, cutoff=0.5)]
    examples = ", ".join(dict.fromkeys(near or repeated[:5] or names[:5]))
    return f"no module matches edges={', '.join(globs)}; this network has modules such as {examples}"


def _declare(
    model: nn.Module, taken: Iterable[EdgeRow], report: Sequence[EdgeRow], base: str, base_args: Mapping[str, Any]
) -> None:
    specs = tuple(_create_spec(model, row) for row in taken)
    recorded = [{"name": s.name, "channels": s.in_channels, "candidates": list(s.candidates)} for s in specs]
    attributes = {
        "edge_specs": _DeclaredEdges(specs),
        "edge_report": tuple(report),
        "model_args": {"base": base, "base_args": dict(base_args), "edges": recorded},
    }
    for name, value in attributes.items():
        setattr(model, name, value)


def _create_spec(model: nn.Module, row: EdgeRow) -> EdgeSpec:
    """The edge of a row. Its cell is the parent module: blocks share theta by their place in a stage."""
    cell, _, place = row.name.rpartition(".")
    operation = type(model.get_submodule(row.name)).__name__
    cell_type = f"{type(model.get_submodule(cell)).__name__} of {operation} ({'/'.join(row.candidates)})"
    return EdgeSpec(
        name=row.name,
        kind="operation",
        operation=operation,
        in_channels=row.channels,
        out_channels=row.channels,
        stride=1,
        cell=cell,
        cell_type=cell_type,
        place=place,
        source="in",
        target="out+" if "none" in row.candidates else "out",  # without the edge something still comes there
        candidates=row.candidates,
    )
