"""Charts of theta over the steps of a run."""

from collections.abc import Sequence

import altair

from ssl_adapt.report.cell_chart import CHANGED, IDENTITY, NONE
from ssl_adapt.report.chart_file import Chart
from ssl_adapt.report.run_architecture import ThetaHistory

ENTRIES = {"theta_id": 1, "theta_same": 2}
CHANGED_NAME, STAYED_NONE, STAYED = "changed", "stayed none", "stayed"
LOOKS = {STAYED: NONE, STAYED_NONE: IDENTITY, CHANGED_NAME: CHANGED}  # the last lie above the others
FIX, THRESHOLD = "the fix", "threshold"
DASHES = {FIX: [2, 3], THRESHOLD: [7, 4]}
MOST_POINTS = 60


def theta_chart(history: ThetaHistory, entry: str) -> Chart:
    """One entry of theta of every edge; edges that changed are red, and the fix and the threshold are marked.

    Args:
        history: of the run.
        entry: "theta_id" or "theta_same"; theta_none has no gradient.
    """
    shown = thinned(len(history.steps))
    rows = [
        {
            "edge": edge,
            "group": _group(history, edge),
            "step": [history.steps[index] for index in shown],
            "value": [round(values[index][ENTRIES[entry]], 3) for index in shown],
        }
        for edge, values in history.theta.items()
    ]
    rows.sort(key=lambda row: [*LOOKS].index(str(row["group"])))
    names = [name for name in LOOKS if any(row["group"] == name for row in rows)]
    colour = altair.Color("group:N").scale(domain=names, range=[LOOKS[name] for name in names])
    colour = colour.legend(title=None, columns=2)
    lines = altair.Chart(altair.InlineData(values=rows)).transform_flatten(["step", "value"])
    lines = lines.mark_line(strokeWidth=1, opacity=0.8).encode(
        x=altair.X("step:Q").scale(nice=False).axis(tickMinStep=1).title("step"),
        y=altair.Y("value:Q").scale(zero=False).title(entry),
        color=colour, detail="edge:N", tooltip=["edge:N", "group:N"],
    )  # fmt: skip
    marks = {FIX: history.fix_step, THRESHOLD: history.threshold if entry == "theta_id" else None}
    marks = {name: place for name, place in marks.items() if place is not None}
    return altair.layer(lines, *(_marked(name, place, [*marks]) for name, place in marks.items()))


def thinned(count: int, most: int = MOST_POINTS) -> list[int]:
    """The indices of at most so many of `count` points, evenly, the first and the last among them."""
    if count <= most:
        return [*range(count)]
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _marked(name: str, place: float | None, names: Sequence[str]) -> Chart:
    """A broken line across the chart, named in the legend."""
    channel = {"x": altair.X("place:Q").title("step")} if name == FIX else {"y": altair.Y("place:Q")}
    dash = altair.StrokeDash("name:N").scale(domain=names, range=[DASHES[name] for name in names])
    dash = dash.legend(title=None, columns=1)
    base = altair.Chart(altair.InlineData(values=[{"place": place, "name": name}]))
    return base.mark_rule(strokeWidth=1.2).encode(**channel, strokeDash=dash)


def _group(history: ThetaHistory, edge: str) -> str:
    if edge in history.changed:
        return CHANGED_NAME
    return STAYED_NONE if history.kinds[edge] == "none" else STAYED
