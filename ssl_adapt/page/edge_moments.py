"""What was known of each edge at points in time: theta over the steps, or measured scores over the rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.recipe import AdaptSection
from ssl_adapt.report.run_architecture import RunArchitecture, ThetaHistory
from ssl_adapt.runs.run_record import RunRecord

MOST_VALUES = 12_000  # of all edges at all points, which keeps the page small
MOST_POINTS = 60


@dataclass(frozen=True)
class EdgeMoments:
    """Numbers of every edge at points in time, which a slider walks through.

    Attributes:
        unit: of time: "step" or "round".
        first: the time of the first point.
        every: from one point to the next.
        count: of points.
        is_fixed: whether the last of them is the architecture after the fix, without numbers.
        values: at each point, by edge; None where there is none.
        is_red: at each point, by edge: whether the edge changes, or has changed.
        more: further numbers for the tooltip: by their names, the same.
    """

    unit: str
    first: int
    every: int
    count: int
    is_fixed: bool
    values: Mapping[str, Sequence[float | None]]
    is_red: Mapping[str, Sequence[bool]]
    more: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)


def theta_moments(history: ThetaHistory, specs: Sequence[EdgeSpec], adapt: AdaptSection) -> EdgeMoments:
    """Theta over the steps, as how far each edge is beyond the point at which it changes; and the choice at last."""
    edges = [spec for spec in specs if spec.name in history.theta]
    start, end = history.steps[0], history.steps[-1]
    most = max(10, min(MOST_POINTS, MOST_VALUES // max(1, len(edges))))
    closest = min((late - early for early, late in pairwise(history.steps)), default=1)
    every = max(closest, -(-(end - start) // most))
    times = [*range(end, start - 1, -every)][::-1]
    # the last record at or before each of these
    indices = [max(i for i, step in enumerate(history.steps) if step <= time) for time in times]
    is_fixed = history.fix_step is not None
    blank: list[float | None] = [None] if is_fixed else []
    values, is_red = {}, {}
    more: dict[str, dict[str, list[float | None]]] = {"theta_id": {}, "theta_same": {}}
    for spec in edges:
        theta = [history.theta[spec.name][index] for index in indices]
        leads = [lead(spec, each, adapt) for each in theta]
        values[spec.name] = [*(None if value is None else round(value, 3) for value in leads), *blank]
        changed = [spec.name in history.changed] if is_fixed else []
        is_red[spec.name] = [*(value is not None and value > 0 for value in leads), *changed]
        for index, name in ((1, "theta_id"), (2, "theta_same")):
            more[name][spec.name] = [*(round(each[index], 3) for each in theta), *blank]
    return EdgeMoments("step", times[0], every, len(times) + is_fixed, is_fixed, values, is_red, more)


def lead(spec: EdgeSpec, theta: Sequence[float], adapt: AdaptSection) -> float | None:
    """Theta of the best change less that of what is there, or the threshold: above 0, theta means a change.

    None where the edge can't become anything else.
    """
    none, identity, same = theta
    may = {choice: spec.allows(choice, adapt.shape_change) for choice in ("none", "identity")}
    if spec.kind == "none":
        bar = max(none, same) if adapt.none_rule == "literal" else adapt.none_threshold
        return identity - bar if may["identity"] else None
    if spec.kind == "identity":
        return none - max(identity, same) if may["none"] else None
    others = [value for choice, value in (("none", none), ("identity", identity)) if may[choice]]
    return max(others) - same if others else None


def score_moments(run: RunRecord, architecture: RunArchitecture) -> EdgeMoments | None:
    """The scores that were measured in each round, of the best change of each edge; None before the first."""
    adapt, events = run.recipe.adapt, run.of("choice")
    if adapt is None or not events:
        return None
    highest_first = adapt.score == "gradmax"
    red = _red_before(run, architecture)
    names = [spec.name for spec in architecture.specs]
    values: dict[str, list[float | None]] = {name: [] for name in names}
    errors: dict[str, list[float | None]] = {name: [] for name in names}
    is_red: dict[str, list[bool]] = {name: [] for name in names}
    for event in events:
        best = best_scores(event, highest_first)
        kinds = {spec.name: spec.kind for spec in architecture.specs}
        for name, choice in event["choices"].items():
            (red.discard if choice in ("original", kinds[name]) else red.add)(name)
        for name in names:
            value, error = best.get(name, (None, None))
            values[name].append(value)
            errors[name].append(error)
            is_red[name].append(name in red)
    return EdgeMoments("round", 1, 1, len(events), False, values, is_red, {"standard error": errors})


def best_scores(event: Mapping[str, Any], highest_first: bool) -> dict[str, tuple[float | None, float | None]]:
    """Value and standard error of the best change of each edge in a round."""
    best: dict[str, tuple[float | None, float | None]] = {}
    ordered = [(value, error, edges) for edges, (value, error, _) in event["scores"].items() if value is not None]
    for value, error, change in sorted(ordered, key=lambda row: row[0], reverse=highest_first):
        for edge in change.rpartition(" -> ")[0].split(", "):
            best.setdefault(edge, (float(f"{value:.4g}"), None if error is None else float(f"{error:.2g}")))
    return best


def _red_before(run: RunRecord, architecture: RunArchitecture) -> set[str]:
    """The edges that differed from the plain network's before the first round."""
    adapt = run.recipe.adapt
    assert adapt is not None
    if adapt.none_start:
        return {s.name for s in architecture.specs if s.kind == "none" and s.allows("identity", adapt.shape_change)}
    if adapt.start_share is None:
        return set()
    opened = {name for event in run.of("choice") for name in event["choices"]}
    return {name for name, choice in architecture.choices.items() if choice != "original"} | opened
