"""A chart of values over the steps of a run, with its stages shaded and a crosshair under the pointer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import altair

from ssl_adapt.page.chart_style import CLASSES, STAGE_SHADES
from ssl_adapt.page.page_section import FigureTable, PageFigure, create_figure

SMOOTHING = "smoothing"  # the parameter of every curve that is smoothed: the share of its points in an average, in %
DEFAULT_SMOOTHING = 5
MOST_POINTS = 1500  # of a series; more are averaged, as a screen has no room for them
MANY_STEPS = 10_000  # from which the axis has them as 10k
TABLE_POINTS = 40  # of a curve whose values are a table too


class Point(NamedTuple):
    """A value of a series after so many steps."""

    step: int
    value: float
    series: str


class Stage(NamedTuple):
    """A stage of a run, from the step that it begins with to that it ends with."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class RunAxis:
    """What the axes of all curves of a run share.

    Attributes:
        last_step: where they end.
        stages: in their order; none of a run without adaptation.
        fixes: the steps after which the architecture was fixed.
    """

    last_step: int
    stages: Sequence[Stage] = ()
    fixes: Sequence[int] = ()


@dataclass(frozen=True)
class Curve:
    """Values over the steps, and how they are shown.

    Attributes:
        name: of the figure.
        title: of the figure.
        description: in a sentence.
        points: in the order in which they are joined; each series is a line.
        form: how a number is written, for d3.
        is_smoothed: whether the slider of the page smooths it; a curve of few measurements is shown as it is.
        is_log: whether the axis is logarithmic.
        references: names and values of horizontal lines.
        note: below the figure.
    """

    name: str
    title: str
    description: str
    points: Sequence[Point]
    form: str = ".3~f"
    is_smoothed: bool = False
    is_log: bool = False
    references: Sequence[tuple[str, float]] = field(default=())
    note: str = ""


def draw_curve(curve: Curve, axis: RunAxis) -> PageFigure:
    """The figure of a curve."""
    series = list(dict.fromkeys(point.series for point in curve.points))
    points = [point for name in series for point in _thinned([one for one in curve.points if one.series == name])]
    values = [{**point._asdict(), "order": order} for order, point in enumerate(points)]
    form = "~s" if axis.last_step >= MANY_STEPS else ",d"
    x = altair.X("step:Q").scale(domain=[0, axis.last_step], nice=False).axis(format=form, tickCount=6).title("step")
    base = altair.Chart().encode(x=x)  # the data are the whole chart's, so that they are smoothed once
    layers = [
        *_background(axis, x),
        *_references(curve),
        *_lines(curve, base, series),
        *_crosshair(curve, base, series),
    ]
    chart = altair.layer(*layers, data=altair.Data(values=values))
    if curve.is_smoothed:
        chart = chart.transform_window(
            smooth="mean(value)", frame=[-1, 1], groupby=["series"], sort=[altair.SortField("order")]
        ).add_params(altair.param(SMOOTHING, value=DEFAULT_SMOOTHING))
    table = _table(curve, series) if len(points) <= TABLE_POINTS else None
    description = " ".join([curve.description, *(_in_words(curve, name) for name in series)])
    figure = create_figure(curve.name, curve.title, description, chart, curve.note, table=table)
    if not curve.is_smoothed:
        return figure
    half = f"round({SMOOTHING} / 200 * {max(1, len(points) // len(series))})"
    # Vega takes signals for the ends of a window, of which the schema of Vega-Lite, and so Altair, does not know.
    figure.spec["transform"][0]["frame"] = [{"signal": f"-{half}"}, {"signal": half}]
    return figure


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The points, or means of as many neighbours as are needed for `MOST_POINTS`."""
    size = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [group[-1]._replace(value=sum(point.value for point in group) / len(group)) for group in groups]


def _background(axis: RunAxis, x: altair.X) -> list[altair.Chart]:
    """The stages as areas, and the fixes as dashed lines."""
    layers = []
    if axis.stages:
        shaded = [
            {**stage._asdict(), "fill": STAGE_SHADES[stage.name][0], "opacity": STAGE_SHADES[stage.name][1]}
            for stage in axis.stages
        ]
        begin = x.copy()
        begin["shorthand"] = "begin:Q"
        layers.append(
            altair.Chart(altair.Data(values=shaded))
            .mark_rect(aria=False)
            .encode(
                x=begin,
                x2="end",
                fill=altair.Fill("fill:N").scale(None),
                opacity=altair.Opacity("opacity:Q").scale(None),
            )
        )
    if axis.fixes:
        fixes = altair.Chart(altair.Data(values=[{"step": step} for step in axis.fixes]))
        layers.append(fixes.mark_rule(strokeDash=[5, 4], opacity=0.7, aria=False).encode(x=x))
    return layers


def _references(curve: Curve) -> list[altair.Chart]:
    """Horizontal lines with their names."""
    if not curve.references:
        return []
    lines = altair.Chart(altair.Data(values=[{"name": name, "value": value} for name, value in curve.references]))
    y = _y(curve)
    return [
        lines.mark_rule(strokeDash=[2, 3], opacity=0.6).encode(y=y),
        lines.mark_text(align="right", baseline="bottom", dx=-4, dy=-2, fontSize=11, aria=False).encode(
            y=y, x=altair.value("width"), text="name:N"
        ),
    ]


def _lines(curve: Curve, base: altair.Chart, series: Sequence[str]) -> list[altair.Chart]:
    """Raw values, faint where they are smoothed as well."""
    colours = altair.Scale(domain=list(series), range=list(CLASSES[: len(series)]))
    color = altair.Color("series:N").scale(colours).title(None).legend(None if len(series) == 1 else altair.Legend())
    encoded = base.encode(y=_y(curve), color=color, order="order:Q")
    if curve.is_smoothed:
        return [
            encoded.mark_line(opacity=0.35, strokeWidth=1, aria=False),
            encoded.mark_line(strokeWidth=2.2).encode(y=_y(curve, "smooth")),
        ]
    return [encoded.mark_line(point=len(curve.points) <= TABLE_POINTS)]


def _crosshair(curve: Curve, base: altair.Chart, series: Sequence[str]) -> list[altair.Chart]:
    """A vertical line at the step nearest to the pointer, with the values there."""
    nearest = altair.selection_point(
        "nearest", fields=["step"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    tooltips = [altair.Tooltip("step:Q", format=",")]
    if len(series) == 1:
        tooltips.append(altair.Tooltip("value:Q", title=series[0], format=curve.form))
        if curve.is_smoothed:
            tooltips.append(altair.Tooltip("smooth:Q", title="smoothed", format=curve.form))
    else:
        base = base.transform_pivot("series", value="value", groupby=["step"])
        tooltips += [altair.Tooltip(f"{name}:Q", format=curve.form) for name in series]
    rule = base.mark_rule(aria=False).encode(
        opacity=altair.when(nearest).then(altair.value(0.6)).otherwise(altair.value(0)), tooltip=tooltips
    )
    return [rule.add_params(nearest)]


def _y(curve: Curve, name: str = "value") -> altair.Y:
    scale = altair.Scale(type="log") if curve.is_log else altair.Scale(zero=False)
    return altair.Y(f"{name}:Q").scale(scale).axis(format=curve.form, tickCount=5, grid=not curve.is_log).title(None)


def _in_words(curve: Curve, name: str) -> str:
    """Where a series begins and ends, and its extremes, for those who can't see it."""
    points = [point for point in curve.points if point.series == name]
    first, last = points[0], points[-1]
    low, high = (find(points, key=lambda point: point.value) for find in (min, max))
    return (
        f"{name[0].upper()}{name[1:]}: {_written(first.value, curve.form)} after step {first.step:,}, "
        f"{_written(last.value, curve.form)} after step {last.step:,}; lowest {_written(low.value, curve.form)} "
        f"after step {low.step:,}, highest {_written(high.value, curve.form)} after step {high.step:,}."
    )


def _table(curve: Curve, series: Sequence[str]) -> FigureTable:
    """The values: a row for each step, in the order of the points."""
    rows: list[tuple[int, dict[str, float]]] = []
    for point in sorted(curve.points, key=lambda point: point.step):
        if not rows or rows[-1][0] != point.step or point.series in rows[-1][1]:
            rows.append((point.step, {}))
        rows[-1][1][point.series] = point.value
    return FigureTable(
        ("step", *series),
        [(f"{step:,}", *(_written(row.get(name), curve.form) for name in series)) for step, row in rows],
    )


def _written(value: Any, form: str) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if form.endswith("%") else f"{value:.4g}"
