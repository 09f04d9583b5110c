"""The network of a run before and after, and theta over its steps, from what the run left in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ssl_adapt.adaptation.architecture import Architecture, apply_architecture, edge_specs
from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.json_text import read_json, read_text
from ssl_adapt.report.edge_table import NetworkTable, describe_network
from ssl_adapt.runs.run_record import RunRecord
from ssl_adapt.training.objective import create_backbone

Theta = tuple[float, float, float]


@dataclass(frozen=True)
class ThetaHistory:
    """Theta of every edge that had one, over the steps.

    Attributes:
        steps: when it was recorded, in their order; the fix is the last of them, if there was one.
        theta: (none, identity, same) at each of these, by the edge's name.
        kinds: what the plain network has at each edge.
        changed: what the fix changed among them.
        fix_step: None before the fix.
        threshold: of theta_id above which a none edge becomes the identity; None where that rule does not hold.
    """

    steps: Sequence[int]
    theta: Mapping[str, Sequence[Theta]]
    kinds: Mapping[str, str]
    changed: Mapping[str, str]
    fix_step: int | None
    threshold: float | None


@dataclass(frozen=True)
class RunArchitecture:
    """The network of a run: its edges, and what they were and are.

    Attributes:
        before: as the run began; of a network that an earlier run had adapted, as that left it.
        after: as it was fixed last; None before that.
        changed: by this run, with what each edge became, or for one that opened "original".
        grows: whether edges opened, and did not go.
    """

    before: NetworkTable
    after: NetworkTable | None
    changed: Mapping[str, Choice]
    grows: bool

    @property
    def specs(self) -> tuple[EdgeSpec, ...]:
        """The edges in forward order."""
        return self.before.specs

    @property
    def choices(self) -> Mapping[str, Choice]:
        """What each edge is now, in terms of the plain network."""
        return (self.after or self.before).architecture.edges


def read_architecture(run: RunRecord) -> RunArchitecture | None:
    """The network of a run, counted without weights; None where the run does not adapt."""
    if run.recipe.adapt is None:
        return None
    now = _read_choices(run)
    grows = run.recipe.adapt.start_share is not None
    earlier = {name: choice for name, choice in now.items() if name not in _own_edges(run, now)}
    if grows:
        opened = {name for event in run.of("choice") for name in event["choices"]}
        specs = edge_specs(create_plain_network(run))
        earlier = {**now, **{spec.name: _absent(spec) for spec in specs if spec.name in opened}}
    before = _describe(run, earlier)
    after = _describe(run, now) if run.last("fix") or run.last("round") else None
    edges = {**earlier, **now}
    changed = {name: now.get(name, "original") for name in edges if now.get(name) != earlier.get(name)}
    return RunArchitecture(before, after, changed, grows)


def create_plain_network(run: RunRecord) -> nn.Module:
    """The network of the recipe, plain and without weights; of an adapted network its edges."""
    start = next(iter(run.of("weights")), None)
    model = run.recipe.model if start is None else run.recipe.model.model_copy(update=start["model"])
    config = run.folder / "export" / "config.json"
    classes = read_json(read_text(config, str(config)), str(config))["num_classes"] if config.is_file() else 0
    with torch.device("meta"):
        return create_backbone(model, run.recipe.data, run.recipe.adapt, num_classes=classes)


def read_theta(run: RunRecord, kinds: Mapping[str, str]) -> ThetaHistory | None:
    """Theta over the steps of a run; None where nothing was recorded of it.

    Args:
        run: its record.
        kinds: what the plain network has at each edge, by name.
    """
    points = {event["step"]: event["theta"] for event in run.of("theta", "fix") if event.get("theta")}
    if not points or run.recipe.adapt is None or run.recipe.adapt.score != "theta":
        return None
    fix, adapt = run.last("fix"), run.recipe.adapt
    steps, edges = sorted(points), list(next(iter(points.values())))
    theta = {edge: [points[step][edge] for step in steps] for edge in edges}
    changed = fix.get("changed", {}) if fix else {}
    has_threshold = adapt.none_rule == "threshold" and not adapt.choices and "none" in map(kinds.get, edges)
    return ThetaHistory(
        steps, theta, kinds, {edge: choice for edge, choice in changed.items() if edge in theta},
        fix["step"] if fix else None, adapt.none_threshold if has_threshold else None,
    )  # fmt: skip


def _absent(spec: EdgeSpec) -> Choice:
    """What an edge is before it opens: none, but for a block that has its shortcut within it."""
    return "none" if "none" in spec.candidates else "identity"


def _read_choices(run: RunRecord) -> dict[str, Choice]:
    """The edges that differ from the plain network's, by the last fix."""
    path = run.folder / "architecture.json"
    return _read_file(path).changed if path.is_file() else {}


def _read_file(path: Path) -> Architecture:
    return Architecture.from_json(read_text(path, str(path)))


def _own_edges(run: RunRecord, now: Mapping[str, Choice]) -> set[str]:
    """The edges that this run may have changed, which are not all where it began with an adapted network."""
    adapt = run.recipe.adapt
    assert adapt is not None
    if adapt.start_share is not None or not run.of("weights"):
        return set(now)
    own = {edge for event in run.of("theta", "fix") for edge in event.get("theta", ())}
    own |= {edge for event in run.of("choice") for edge in event["choices"]}
    if adapt.none_start and adapt.score != "theta":  # skips stood there from its first step
        own |= {spec.name for spec in edge_specs(create_plain_network(run)) if spec.kind == "none"}
    return own


def _describe(run: RunRecord, changed: Mapping[str, Choice]) -> NetworkTable:
    network = create_plain_network(run)
    architecture = Architecture.of(network)
    path = run.folder / "architecture.json"
    shape_change = _read_file(path).shape_change if path.is_file() else "pad"
    edges = {spec.name: changed.get(spec.name, "original") for spec in edge_specs(network)}
    with torch.device("meta"):
        apply_architecture(network, Architecture(architecture.model, architecture.model_args, edges, shape_change))
    return describe_network(network, run.recipe.data.image_px)
