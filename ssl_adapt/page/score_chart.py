"""The measured scores of changes, those that were made in red."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair

from ssl_adapt.page.chart_style import ACCENT
from ssl_adapt.page.page_section import PageFigure, create_figure
from ssl_adapt.report.cell_chart import CHANGED

MOST_ROWS = 24  # of a round, beside the changes that were made
MEANINGS = {
    "removal": "loss with the change, less without",
    "taylor": "sum of (weight x gradient)² of what goes",
    "gradmax": "squared gradient of the branch's last layer",
}


def score_chart(events: Sequence[Mapping[str, Any]], score: str) -> PageFigure:
    """A figure of the changes that were made in each round, and those that came nearest to them.

    Args:
        events: `choice` of a run.
        score: the rule.
    """
    rows = [row for event in events for row in _rows(event, score)]
    base = altair.Chart(altair.InlineData(values=rows))
    params = []
    if len(events) > 1:
        base = base.transform_filter("datum.round == shown")
        slider = altair.binding_range(min=1, max=len(events), step=1, name="Round ")
        params.append(altair.param(name="shown", value=len(events), bind=slider))
    colour = altair.Color("state:N").scale(domain=["made", "left"], range=[CHANGED, ACCENT]).title(None)
    y = altair.Y("change:N").sort(field="order").title(None).axis(labelLimit=190)
    x = altair.X("value:Q").title(MEANINGS.get(score, score)).axis(tickCount=5)
    tooltip = [
        "change:N",
        altair.Tooltip("value:Q").format(".4~g"),
        altair.Tooltip("error:Q").format(".2~g"),
        "state:N",
    ]
    layers = [
        base.mark_rule(strokeWidth=1.5)
        .encode(x="low:Q", x2="high:Q", y=y, color=colour)
        .transform_calculate(low="datum.value - 2 * datum.error", high="datum.value + 2 * datum.error"),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip),
    ]
    if score == "gradmax":  # no error is known
        layers = layers[1:]
    most = max(sum(row["round"] == number for row in rows) for number in {row["round"] for row in rows})
    chart = altair.layer(*layers).add_params(*params)
    note = "Lines reach over two standard errors to either side." if score != "gradmax" else ""
    about = "The score of each change that was made, and of those that came nearest to being made."
    return create_figure("measured-scores", "What was measured", about, chart, note, height_px=40 + 17 * most)


def _rows(event: Mapping[str, Any], score: str) -> list[dict[str, Any]]:
    """The changes that were made, then those that come nearest to them."""
    ordered = sorted(
        ((*values, change) for change, values in event["scores"].items() if values[0] is not None),
        key=lambda row: row[0],
        reverse=score == "gradmax",
    )
    made: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    for value, error, _, change in ordered:
        edges, _, choice = change.rpartition(" -> ")
        is_made = all(event["choices"].get(edge) == choice for edge in edges.split(", "))
        row = {"change": change.replace("->", "→"), "value": value, "error": error or 0, "round": event["round"]}
        (made if is_made else left).append({**row, "state": "made" if is_made else "left"})
    return [{**row, "order": order} for order, row in enumerate([*made, *left[:MOST_ROWS]])]
