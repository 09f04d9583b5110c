"""Architecture: what adaptation found, as plain data."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast, get_args

from torch import nn

from ssl_adapt.adaptation.edge import (
    CHOICES,
    Adaptable,
    Choice,
    EdgeSpec,
    MixedEdge,
    Pad,
    Project,
    ShapeChange,
    Zero,
    create_identity,
)
from ssl_adapt.errors import UserError
from ssl_adapt.json_text import check_plain, read_json, shown

VERSION = 1
MAX_EDGES = 100_000
MAX_NAME = 256  # characters of a name that are compared with the known ones


@dataclass(frozen=True)
class Architecture:
    """A base network and the chosen candidate of each of its edges.

    Attributes:
        model: name of the base network, as for `timm.create_model`.
        model_args: its arguments, JSON values only.
        edges: the choice for every edge, by the edge's name, in forward order.
        shape_change: what an identity is where the shape changes ("pad" or "project").
    """

    model: str
    model_args: Mapping[str, Any]
    edges: Mapping[str, Choice]
    shape_change: ShapeChange = "pad"

    @property
    def changed(self) -> dict[str, Choice]:
        """The edges that differ from the base network."""
        return {name: choice for name, choice in self.edges.items() if choice != "original"}

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields and the version of the format."""
        return {
            "version": VERSION,
            "model": self.model,
            "model_args": dict(self.model_args),
            "shape_change": self.shape_change,
            "edges": dict(self.edges),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """The architecture that `to_dict` described.

        Raises:
            ValueError: for another version, missing or unknown keys, choices that do not exist, more than 100,000
                edges, and values that are not JSON's or nested more than 32 deep.
        """
        known = {"version", "model", "model_args", "shape_change", "edges"}
        if not isinstance(data, Mapping) or set(data) != known:
            found = shown([*data]) if isinstance(data, Mapping) else type(data).__name__
            raise UserError(f"an architecture has exactly the keys {sorted(known)}; got {found}")
        version, model, arguments, edges = (data[key] for key in ("version", "model", "model_args", "edges"))
        if not isinstance(edges, Mapping) or not isinstance(arguments, Mapping):
            raise UserError("an architecture's 'edges' and 'model_args' are mappings")
        if len(edges) > MAX_EDGES:
            raise UserError(f"an architecture has at most {MAX_EDGES:,} edges; got {len(edges):,}")
        check_plain(data, "an architecture")
        if type(version) is not int or version != VERSION:
            raise UserError(f"architecture of version {shown(version)}; this release reads {VERSION}")
        if not isinstance(model, str) or not model:
            raise UserError(
                f"an architecture's 'model' is {shown(model)}; give the name of a network, as timm knows it"
            )
        for key in arguments:
            if not key.isidentifier():
                raise UserError(f"model_args has the key {shown(key)}, which can't be the name of an argument")
        for name, choice in edges.items():
            if choice not in CHOICES:
                raise UserError(f"edge {shown(name)} has the choice {shown(choice)}; possible are {', '.join(CHOICES)}")
        if data["shape_change"] not in get_args(ShapeChange):
            raise UserError(f"shape_change {shown(data['shape_change'])} is not one of {get_args(ShapeChange)}")
        return cls(model, dict(arguments), dict(edges), data["shape_change"])

    def to_json(self) -> str:
        """Text with one edge a line, so that two architectures can be compared with diff."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """The architecture that `to_json` wrote.

        Raises:
            ValueError: if the text is longer than 4 MiB, not JSON, has a key twice, or is not an architecture.
        """
        return cls.from_dict(read_json(text, "an architecture's text"))

    @classmethod
    def of(cls, model: nn.Module) -> "Architecture":
        """The architecture that a plain or fixed network has now, read off its modules.

        Raises:
            ValueError: if the model declares no edges, or is still being adapted.
        """
        specs = edge_specs(model)
        modules = {spec.name: model.get_submodule(spec.name) for spec in specs}
        if any(isinstance(module, MixedEdge) for module in modules.values()):
            raise UserError("this network is still mixed; call Adaptation.fix() first, or use Adaptation.derive()")
        edges = {spec.name: _choice_seen(spec, modules[spec.name]) for spec in specs}
        projects = any(isinstance(module, Project) for module in modules.values())
        return cls(model_name(model), model_args(model), edges, "project" if projects else "pad")


def edge_specs(model: nn.Module) -> tuple[EdgeSpec, ...]:
    """The edges that a network declares.

    Raises:
        ValueError: if it declares none.
    """
    if not isinstance(model, Adaptable):
        raise UserError(
            f"{type(model).__name__} declares no edges (it has no edge_specs()); "
            "use a network of ssl_adapt such as 'resnet20' or 'resnet50_cifar'"
        )
    return tuple(model.edge_specs())


def model_name(model: nn.Module) -> str:
    """The name under which timm built the model; its class's name if timm did not."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return str(cfg.get("architecture") or type(model).__name__)


def model_args(model: nn.Module) -> dict[str, Any]:
    """The arguments that build the model's plain form again, beside its name."""
    return dict(getattr(model, "model_args", {}))


def apply_architecture(model: nn.Module, architecture: Architecture) -> None:
    """Turn a plain network into the adapted one, in place: unchosen operations are removed.

    An edge that has changed before must be what the architecture makes of it.

    Raises:
        ValueError: if the edges are not those of the network, a choice is impossible there, the network is mixed or
            adapted in another way, or an edge's module has another name too; the network then stays as it was.
    """
    specs = edge_specs(model)
    check_own_modules(model, specs)
    check_edge_names(architecture.edges, (spec.name for spec in specs), complete=True)
    before = Architecture.of(model)
    for name, choice in before.changed.items():
        if choice != architecture.edges[name] or before.shape_change != architecture.shape_change:
            raise UserError(
                f"this network was adapted before, edge '{name}' into {choice}; apply the architecture to a plain one"
            )
    chosen = {
        spec.name: chosen_module(
            spec, model.get_submodule(spec.name), architecture.edges[spec.name], architecture.shape_change
        )
        for spec in specs
        if spec.name not in before.changed
    }
    for name, module in chosen.items():
        replace_module(model, name, module)


def check_own_modules(model: nn.Module, specs: Sequence[EdgeSpec]) -> None:
    """Refuse edges that can't change alone: one module under two names, an edge twice, or an edge within an edge.

    Modules may still share parameters.

    Raises:
        ValueError: with the two names.
    """
    edges = [spec.name for spec in specs]
    names_of: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names_of.setdefault(module, []).append(name)
    for index, edge in enumerate(edges):
        if edge in edges[:index]:
            raise UserError(f"edge '{edge}' is declared twice; declare it once")
        outer = next((other for other in edges if edge.startswith(f"{other}.")), None)
        if outer is not None:
            raise UserError(f"edge '{edge}' lies within edge '{outer}', which takes its place; declare one of them")
        other = next((name for name in names_of[model.get_submodule(edge)] if name != edge), None)
        if other is not None:
            what = f"edges '{edge}' and '{other}' are" if other in edges else f"edge '{edge}' and module '{other}' are"
            raise UserError(
                f"{what} one and the same {type(model.get_submodule(edge)).__name__}, so that neither can change "
                "alone; put a copy (copy.deepcopy) under one of the names, or remove that name"
            )


def check_edge_names(names: Iterable[str], known: Iterable[str], *, complete: bool = False) -> None:
    """Compare edge names with those of the network.

    Raises:
        ValueError: naming the first unknown edge and the nearest known one, or the first missing one.
    """
    given, known = list(names), list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name[:MAX_NAME], known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; it has {len(known)} others"
            raise UserError(f"the network has no edge {shown(name)}{hint}")
    if complete and (missing := [name for name in known if name not in set(given)]):
        raise UserError(f"no choice is given for edge '{missing[0]}' ({len(missing)} missing in all)")


def chosen_module(
    spec: EdgeSpec,
    original: nn.Module,
    choice: Choice,
    shape_change: ShapeChange,
    identity: nn.Module | None = None,
) -> nn.Module:
    """The module that stands at an edge once `choice` is made; `identity` is reused if given.

    Raises:
        ValueError: if the edge may not become that.
    """
    if choice == "original" or choice == spec.kind:
        return original
    if not spec.allows(choice, shape_change):
        reason = f"its candidates are {', '.join(spec.candidates)}"
        if choice in spec.candidates:
            reason = "it changes its tensor's shape, and shape_change='forbid'"
        raise UserError(f"edge '{spec.name}' can't become '{choice}': {reason}")
    if choice == "none":
        shape = (spec.out_channels, spec.stride) if spec.changes_shape else ()
        return Zero(*shape).train(original.training)
    module = identity if identity is not None else create_identity(spec, shape_change)
    assert module is not None
    return module.train(original.training)


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the path `name` of `model`."""
    parent_name, _, child_name = name.rpartition(".")
    setattr(model.get_submodule(parent_name), child_name, module)


def unmixed(model: nn.Module) -> nn.Module:
    """A copy of the network in which each mixed edge is the plain network's operation again."""
    copy = deepcopy(model)
    for name, module in [*copy.named_modules()]:
        if isinstance(module, MixedEdge):
            replace_module(copy, name, module.operation)
    return copy


def _choice_seen(spec: EdgeSpec, module: nn.Module) -> Choice:
    seen = "none" if isinstance(module, Zero) else None
    if isinstance(module, nn.Identity | Pad | Project):
        seen = "identity"
    return "original" if seen is None or seen == spec.kind else cast(Choice, seen)
