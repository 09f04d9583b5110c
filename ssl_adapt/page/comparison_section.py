"""Several runs side by side: scores, spread over seeds, paired differences, costs and curves."""

import itertools
import re
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import altair

from ssl_adapt.errors import UserError
from ssl_adapt.page.chart_style import ACCENT
from ssl_adapt.page.page_section import FigureTable, PageFigure, PageSection, create_figure
from ssl_adapt.report.compare_groups import SCORE_NAMES, Comparison, compare_groups, shown_value, with_sd
from ssl_adapt.report.paired_test import p_text
from ssl_adapt.runs.run_record import RunRecord
from ssl_adapt.runs.same_recipe import FREE
from ssl_adapt.runs.short_text import short_count, short_time

Groups = Mapping[str, Sequence[RunRecord]]
SEED = re.compile(r"[-_.\s]*seed[-_=.\s]*\d+", re.IGNORECASE)  # of a folder's name
ROW_PX = 46


def group_runs(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs whose recipes differ in nothing but the seed, by a name of their own, in the order of the first of each.

    A group is named as its folders are, without the seed.
    """
    recipes: list[dict[str, Any]] = []
    groups: list[list[RunRecord]] = []
    for run in runs:
        recipe = run.recipe.model_dump(exclude=FREE | {"seed": True})
        if recipe not in recipes:
            recipes.append(recipe)
            groups.append([])
        groups[recipes.index(recipe)].append(run)
    named: dict[str, list[RunRecord]] = {}
    for group in groups:
        name = SEED.sub("", group[0].name) or group[0].name
        names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        fresh = next(one for one in names if one not in named)
        named[fresh] = group
    return named


def comparison_sections(groups: Groups) -> list[PageSection]:
    """The sections of a page of several runs: scores and differences, then curves."""
    comparison, refusal = None, ""
    if len(groups) > 1:
        try:
            comparison = compare_groups(groups)
        except UserError as error:
            refusal = str(error)
    figures = [figure for figure in (_scores(groups), _differences(comparison)) if figure is not None]
    values = {
        "groups": _group_rows(groups),
        "differences": _difference_rows(comparison),
        "refusal": refusal,
        "recipe": _recipe_rows(comparison),
        "names": list(groups),
        "protocol": _protocol(groups),
        "runs": [_run_row(name, run) for name, runs in groups.items() for run in runs],
    }
    sections = [PageSection("comparison", "Side by side", values, figures)]
    curves = [figure for figure in _curves(groups) if figure is not None]
    return [*sections, PageSection("comparison_curves", "Curves", {}, curves)] if curves else sections


def _score_name(groups: Groups) -> str:
    names = {SCORE_NAMES[run.score_key] for runs in groups.values() for run in runs}
    return " or ".join(sorted(names))


def _protocol(groups: Groups) -> str:
    """How the scores were measured; empty where that differs, or nothing was measured."""
    found = {run.result.get("protocol", "") for runs in groups.values() for run in runs if run.score is not None}
    return f"{_score_name(groups)}: {found.pop()}" if len(found) == 1 else ""


def _group_rows(groups: Groups) -> list[tuple[str, ...]]:
    """Name, runs, mean and standard deviation, cost and time of each group."""
    return [
        (
            name, str(len(runs)), _mean_text([100 * run.score for run in runs if run.score is not None]),
            *(_mean_count([run.result.get(key) for run in runs]) for key in ("parameters", "macs")),
            short_time(sum(run.seconds for run in runs) / len(runs)),
        )
        for name, runs in groups.items()
    ]  # fmt: skip


def _mean_text(values: Sequence[float]) -> str:
    if not values:
        return "none yet"
    return with_sd(fmean(values), stdev(values) if len(values) > 1 else None)


def _mean_count(values: Sequence[Any]) -> str:
    counts = [value for value in values if isinstance(value, int | float)]
    return short_count(sum(counts) / len(counts)) if counts else ""


def _difference_rows(comparison: Comparison | None) -> list[tuple[str, ...]]:
    """Which, points, interval, p, p after Holm where there are several, and the number of pairs."""
    if comparison is None:
        return []
    return [
        (
            f"{found.group} - {found.against}",
            f"{found.mean:+.2f}",
            "" if found.low is None else f"{found.low:+.2f} to {found.high:+.2f}",
            *("" if p is None else p_text(p) for p in (found.p_value, found.p_holm)[: len(comparison.differences)]),
            str(found.pairs),
        )
        for found in comparison.differences
    ]


def _recipe_rows(comparison: Comparison | None) -> list[tuple[str, ...]]:
    differing = comparison.recipe if comparison else {}
    return [(key, *map(shown_value, by_group.values())) for key, by_group in differing.items()]


def _run_row(group: str, run: RunRecord) -> tuple[str, ...]:
    score = "" if run.score is None else f"{run.score:.2%}"
    return (
        group,
        str(run.recipe.seed),
        str(run.status.get("state", "")),
        score,
        short_time(run.seconds),
        str(run.folder),
    )


def _scores(groups: Groups) -> PageFigure | None:
    """The score of every run as a dot, each group a row, with the mean and its 95 % interval."""
    dots: list[dict[str, Any]] = [
        {"group": name, "seed": run.recipe.seed, "score": 100 * run.score}
        for name, runs in groups.items() for run in runs if run.score is not None
    ]  # fmt: skip
    if not dots:
        return None
    base = altair.Chart(altair.Data(values=dots)).encode(
        y=altair.Y("group:N", sort=list(groups), title=None, axis=altair.Axis(labelLimit=220)),
        color=altair.Color("group:N", sort=list(groups), legend=None),
    )
    title, axis = f"{_score_name(groups)}, %", altair.Axis(tickCount=6)
    x = altair.X("score:Q", title=title, axis=axis).scale(zero=False, padding=20)
    tooltip = ["group:N", "seed:N", altair.Tooltip("score:Q", format=".2f")]
    chart = altair.layer(
        base.mark_errorbar(extent="stdev", thickness=2).encode(x=x),
        base.mark_tick(thickness=3, size=20).encode(x=altair.X("mean(score):Q", title=title, axis=axis)),
        base.mark_circle(size=60, opacity=0.6).encode(x=x, tooltip=tooltip),
    )
    return create_figure(
        "scores", "Score of every run", "Scores of the runs as dots; each group is a row, its mean a tick.", chart,
        "A dot is a run, the tick the mean of its group, the line one standard deviation on each side of it.",
        height_px=40 + ROW_PX * len(groups),
        table=FigureTable(
            ("group", "seed", "score, %"), [(dot["group"], str(dot["seed"]), f"{dot['score']:.2f}") for dot in dots]
        ),
    )  # fmt: skip


def _differences(comparison: Comparison | None) -> PageFigure | None:
    """Every group less the first, with its interval, beside the line of no difference."""
    if comparison is None:
        return None
    names = [found.group for found in comparison.differences]
    values = [
        {"group": found.group, "points": found.mean, "low": found.low, "high": found.high, "pairs": found.pairs}
        for found in comparison.differences
    ]
    base = altair.Chart(altair.Data(values=values)).encode(
        y=altair.Y("group:N", sort=names, title=None, axis=altair.Axis(labelLimit=220))
    )
    title, axis = f"points over {comparison.groups[0].name}", altair.Axis(tickCount=6)
    zero = altair.Chart(altair.Data(values=[{"zero": 0}])).mark_rule(strokeDash=[3, 3])
    numbers = [altair.Tooltip(f"{key}:Q", format="+.2f") for key in ("points", "low", "high")]
    chart = altair.layer(
        zero.encode(x=altair.X("zero:Q", title=title, axis=axis)),
        base.mark_rule(strokeWidth=2.5, color=ACCENT).encode(x=altair.X("low:Q", title=title, axis=axis), x2="high:Q"),
        base.mark_circle(size=110, opacity=1, color=ACCENT).encode(
            x=altair.X("points:Q", title=title, axis=axis), tooltip=["group:N", *numbers, "pairs:Q"]
        ),
    )  # fmt: skip
    return create_figure(
        "differences", f"Difference from {comparison.groups[0].name}, paired by seed",
        "The mean difference of each group from the first one, over pairs of runs with the same seed.", chart,
        "The line is the 95 % interval over the pairs; where it meets the dotted line, the groups can't be told apart.",
        height_px=40 + ROW_PX * len(names),
    )  # fmt: skip


def _curves(groups: Groups) -> list[PageFigure | None]:
    key = next((run.score_key for runs in groups.values() for run in runs), "knn_top1")
    measured = ("untrained", "loaded", "evaluation", "result")
    return [
        _curve(groups, "group-scores", _score_name(groups), measured, key, ".1%"),
        _curve(groups, "group-losses", "Loss", ("epoch",), "loss", ".3~f"),
        _curve(groups, "group-rank", "RankMe", measured, "rank_me", ".3~f"),
        _curve(groups, "group-speed", "Images per second", ("epoch",), "images_per_sec", ",.0f"),
    ]


def _curve(groups: Groups, name: str, title: str, events: Sequence[str], key: str, form: str) -> PageFigure | None:
    """A value over the steps, for each group the mean of its runs and their whole range."""
    values = [
        {"group": group, "step": event["step"], "value": event[key]}
        for group, runs in groups.items() for run in runs for event in run.of(*events) if event.get(key) is not None
    ]  # fmt: skip
    if not values:
        return None
    base = altair.Chart(altair.Data(values=values)).encode(
        x=altair.X("step:Q", title="step", axis=altair.Axis(tickCount=6))
    )
    color = altair.Color("group:N", sort=list(groups), title=None, legend=altair.Legend(symbolOpacity=1))
    y = altair.Y("mean(value):Q", title=None, axis=altair.Axis(format=form)).scale(zero=False)
    tooltip = [
        "group:N",
        "step:Q",
        altair.Tooltip("mean(value):Q", title="mean", format=form),
        altair.Tooltip("count()", title="runs"),
    ]
    lowest = altair.Y("min(value):Q", title=None).scale(zero=False)
    chart = altair.layer(
        base.mark_area(opacity=0.18).encode(y=lowest, y2="max(value):Q", color=color),
        base.mark_line().encode(y=y, color=color),
        base.mark_circle(size=24).encode(y=y, color=color, tooltip=tooltip),
    )  # fmt: skip
    return create_figure(
        name, title, f"{title} over the steps: for each group the mean of its runs, and their range.", chart,
        "Mean of the runs of a group; shaded from the lowest to the highest of them.",
    )  # fmt: skip
