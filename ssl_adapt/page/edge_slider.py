"""The chart in which a slider walks through time: a cell's drawing, and below it every edge of the network."""

from collections.abc import Sequence
from typing import Any

import altair

from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.page.edge_moments import EdgeMoments
from ssl_adapt.report.cell_chart import CHANGED, DOTTED, IDENTITY, NONE, PLAIN, edge_layers, node_layers
from ssl_adapt.report.cell_layout import lay_out_cell
from ssl_adapt.report.cell_shapes import edge_shapes, node_shapes
from ssl_adapt.report.chart_file import Chart
from ssl_adapt.report.distinct_cells import change_label

SQUARE_PX = (50, 22)  # of an edge in the table of all edges
NUMBER_WIDTH = "  -0.000"  # what is written beside an operation is no wider


def edge_slider(
    moments: EdgeMoments, specs: Sequence[EdgeSpec], choices: Any, *, has_nodes: bool, number_format: str
) -> Chart:
    """The chart.

    Args:
        moments: what was known of each edge.
        specs: the edges in forward order.
        choices: what each of them is at last, by name.
        has_nodes: whether cells have nodes that edges join, so that one of them can be drawn.
        number_format: of a number at an edge, as d3 has it.
    """
    shown = [spec for spec in specs if spec.name in moments.values]
    cells = list(dict.fromkeys(spec.cell for spec in shown))
    rows = {spec.name: _row(moments, spec, choices) for spec in shown}
    numbers = [v for values in moments.values.values() for v in values if v is not None]
    above, below = _usual_size([v for v in numbers if v > 0]), _usual_size([-v for v in numbers if v < 0])
    steps = {
        "at": f"round((moment - {moments.first}) / {moments.every})",
        "value": "datum.values[datum.at]",
        "red": "datum.reds[datum.at] == '1'",
        "colour": f"datum.red ? '{CHANGED}' : isValid(datum.value) ? '{IDENTITY}' : '{NONE}'",
        "strength": "!isValid(datum.value) ? (datum.red ? 1 : 0.3) : (datum.red ? 0.3 : 0.05) + "
        f"(datum.red ? 0.7 : 0.45) * min(1, datum.value > 0 ? datum.value / {above} : -datum.value / {below})",
        "written": f"isValid(datum.value) ? format(datum.value, '{number_format}') : ''",
        "words": "isValid(datum.value) ? datum.operation + '  ' + datum.written : datum.fixed",
        **{_field(name): f"datum['{_field(name)} list'][datum.at]" for name in moments.more},
    }
    charts: list[Any] = []
    params = []
    if moments.count > 1:
        last = moments.first + (moments.count - 1) * moments.every
        name = "Step " if moments.unit == "step" else "Round "
        slider = altair.binding_range(min=moments.first, max=last, step=moments.every, name=name)
        params.append(altair.param(name="moment", value=last - moments.is_fixed * moments.every, bind=slider))
    else:
        params.append(altair.param(name="moment", value=moments.first))
    if has_nodes:
        start = max(cells, key=lambda cell: sum(rows[s.name]["reds"][-1] == "1" for s in shown if s.cell == cell))
        menu = altair.binding_select(options=cells, name="Cell ")
        params.append(altair.param(name="cell", value=start, bind=menu))
        charts.append(_drawing(shown, rows, steps, choices))
    charts.append(_table([*rows.values()], cells, steps, moments, has_menu=has_nodes))
    return altair.vconcat(*charts, spacing=18).add_params(*params)


def _usual_size(numbers: Sequence[float]) -> float:
    """What few of the numbers exceed, so that a single one does not pale the rest."""
    return sorted(numbers)[int(0.95 * (len(numbers) - 1))] if numbers else 1.0


def _row(moments: EdgeMoments, spec: EdgeSpec, choices: Any) -> dict[str, Any]:
    lists = {f"{_field(name)} list": by_edge[spec.name] for name, by_edge in moments.more.items()}
    return {
        "edge": spec.name,
        "cell": spec.cell,
        "place": spec.place,
        "operation": spec.operation,
        "fixed": change_label(spec, choices.get(spec.name, "original")),
        "values": moments.values[spec.name],
        "reds": "".join("1" if red else "0" for red in moments.is_red[spec.name]),
        **lists,
    }


def _field(name: str) -> str:
    return name.replace(" ", "_")


def _tooltip(moments: EdgeMoments) -> list[Any]:
    numbers = [altair.Tooltip(f"{_field(name)}:Q").format(".4~g").title(name) for name in moments.more]
    return [altair.Tooltip("edge:N"), altair.Tooltip("words:N").title(" "), *numbers]


def _calculated(chart: Chart, steps: dict[str, str]) -> Chart:
    for name, expression in steps.items():
        chart = chart.transform_calculate(**{name: expression})
    return chart


def _drawing(specs: Sequence[EdgeSpec], rows: dict[str, dict[str, Any]], steps: dict[str, str], choices: Any) -> Chart:
    """The cell that the menu names; the rows of edges get their shapes."""
    nodes, width, height = [], 0.0, 0.0
    by_cell: dict[str, list[EdgeSpec]] = {}
    for spec in specs:
        by_cell.setdefault(spec.cell, []).append(spec)
    alike: dict[Any, list[str]] = {}
    for cell, own in by_cell.items():
        looks = tuple((s.source, s.target, s.operation, choices.get(s.name)) for s in own)
        alike.setdefault(looks, []).append(cell)
    for cells in alike.values():
        own = by_cell[cells[0]]
        labels = {s.name: max(s.operation + NUMBER_WIDTH, rows[s.name]["fixed"], key=len) for s in own}
        layout = lay_out_cell(own, labels)
        width, height = max(width, layout.width), max(height, layout.top - layout.bottom)
        shapes = {shape.pop("edge"): shape for shape in edge_shapes(layout, labels)}
        for cell in cells:
            for first, spec in zip(own, by_cell[cell], strict=True):
                rows[spec.name].update(shapes[first.name], dash=DOTTED if spec.kind == "none" else [])
        nodes += [{**node, "cells": cells} for node in node_shapes(layout)]
    look = {
        "strokeWidth": altair.StrokeWidth("strength:Q").scale(domain=[0, 1], range=[1, 4.5]).legend(None),
        "text": altair.Text("words:N"),
        "tooltip": [altair.Tooltip("edge:N"), altair.Tooltip("words:N").title(" ")],
    }
    layers = edge_layers([*rows.values()], **look)
    layers = [_calculated(layer.transform_filter("datum.cell == cell"), steps) for layer in layers]
    boxes = [layer.transform_filter("indexof(datum.cells, cell) >= 0") for layer in node_layers(nodes)]
    return altair.layer(*layers, *boxes).properties(width=width, height=height)


def _table(
    rows: list[dict[str, Any]], cells: Sequence[str], steps: dict[str, str], moments: EdgeMoments, *, has_menu: bool
) -> Chart:
    """A square for each edge: cells from top to bottom, places from left to right; the menu's cell has a frame."""
    places = list(dict.fromkeys(row["place"] for row in rows))
    base = _calculated(altair.Chart(altair.InlineData(values=rows)), steps).encode(
        x=altair.X("place:N").sort(places).title(None).axis(orient="top", labelAngle=-35, domain=False, ticks=False),
        y=altair.Y("cell:N").sort(list(cells)).title(None).axis(domain=False, ticks=False, labelLimit=160),
        tooltip=_tooltip(moments),
    )
    squares = base.mark_rect(cornerRadius=3, stroke=NONE, strokeWidth=0.4).encode(
        color=altair.Color("colour:N").scale(None).legend(None),
        fillOpacity=altair.FillOpacity("strength:Q").scale(domain=[0, 1], range=[0.06, 0.75]).legend(None),
    )
    if has_menu:
        is_chosen = "datum.cell == cell"
        squares = squares.encode(
            stroke=altair.condition(is_chosen, altair.value(PLAIN), altair.value(NONE)),
            strokeWidth=altair.condition(is_chosen, altair.value(1.6), altair.value(0.4)),
        )
    numbers = base.mark_text(fontSize=10, baseline="middle").encode(text="written:N")
    width, height = SQUARE_PX
    return altair.layer(squares, numbers).properties(width=width * len(places), height=height * len(cells))
