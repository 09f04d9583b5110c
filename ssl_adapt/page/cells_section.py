"""The architecture of a run: its cells before and after, theta and scores over time, and what was removed."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair

from ssl_adapt.adaptation.edge import EdgeSpec
from ssl_adapt.page.chart_style import ACCENT
from ssl_adapt.page.edge_moments import EdgeMoments, lead, score_moments, theta_moments
from ssl_adapt.page.edge_slider import edge_slider
from ssl_adapt.page.page_section import PageFigure, PageSection, create_figure
from ssl_adapt.page.score_chart import score_chart
from ssl_adapt.recipe import AdaptSection
from ssl_adapt.report.cell_chart import CHANGED, cell_chart
from ssl_adapt.report.cell_text import dot_text, mermaid_text
from ssl_adapt.report.distinct_cells import DistinctCell, are_in_a_row, cell_names, distinct_cells, drawn_one_by_one
from ssl_adapt.report.edge_table import EdgeRow, NetworkTable
from ssl_adapt.report.run_architecture import RunArchitecture, ThetaHistory, read_architecture, read_theta
from ssl_adapt.report.theta_chart import ENTRIES, theta_chart
from ssl_adapt.runs.run_record import RunRecord

MOST_DRAWINGS, MOST_ROWS = 9, 30
Row = tuple[str, ...]
SIGNS = {
    "theta": "At each edge stands theta of the best change less theta of what is there, or less the threshold of none "
    "edges: above 0 (red) the edge changes, below (blue) it stays.",
    "removal": "At each edge stands by how much the loss rises with its best change really made: below 0 it helps. Red "
    "edges have changed.",
    "taylor": "At each edge stands the sum of (weight x gradient)² of the weights that would go: the lower, the less "
    "they matter. Red edges have changed.",
    "gradmax": "At each edge stands the squared gradient of its last layer, before it opens: the higher, the more it "
    "would help. Red edges are not there.",
}


def cells_section(run: RunRecord) -> PageSection:
    """Cells, theta, scores and savings; a sentence alone for a run that does not adapt."""
    adapt, name = run.recipe.adapt, run.recipe.model.name
    text = f"This run trains {name} as it is: its architecture does not adapt."
    try:
        architecture = read_architecture(run)
    except ValueError as error:  # of a network that only the user's own code knows, say
        architecture, text = None, f"{name} can't be built here, so that its cells are not shown: {error}"
    if adapt is None or architecture is None:
        return PageSection("cells", "The architecture", {"summary": text, "drawings": [], "tables": []})
    specs = drawn_one_by_one(architecture.before.architecture.model, architecture.specs)
    drawings, left = _drawings(specs, architecture)
    history = read_theta(run, {spec.name: spec.kind for spec in architecture.specs})
    figures = [figure for _, group in drawings for figure in group]
    theta = [] if history is None else _theta_figures(history, architecture, adapt)
    scores = _score_figures(run, architecture)
    texts = {}
    for name, write in (("cells.dot", dot_text), ("cells.mmd", mermaid_text)):
        texts[name] = write(specs, architecture.choices, f"{architecture.before.model}, {run.name}")
    values = {
        "summary": _summary(run, architecture),
        "drawings": drawings,
        "left": left,
        "more": [*theta, *scores],
        "tables": [_cell_table(architecture), *([_saved_table(architecture)] if architecture.after else [])],
    }
    return PageSection("cells", "The architecture", values, [*figures, *theta, *scores], texts)


def _summary(run: RunRecord, architecture: RunArchitecture) -> str:
    before, after = architecture.before, architecture.after
    edges = f"{before.model} has {len(before.rows)} edges, the places that may change"
    if after is None:
        last = max((event["step"] for event in run.events), default=0)
        return f"{edges}. Nothing is fixed yet, at step {last:,}."
    fix = run.last("fix")
    what = "opened" if architecture.grows else "changed"
    when = f"by step {fix['step']:,}" if fix else "so far"
    return (
        f"{edges}; {len(architecture.changed)} of them {what} {when}. Parameters {before.parameters:,} → "
        f"{after.parameters:,}, multiply-adds of an image {before.macs:,} → {after.macs:,}."
    )


def _drawings(
    specs: Sequence[EdgeSpec], architecture: RunArchitecture
) -> tuple[list[tuple[str, list[PageFigure]]], int]:
    """For each type of cell its figures, before and after; and how many, of the fewest cells, are left out."""
    groups: dict[str, list[PageFigure]] = {}
    left = 0
    costs = [_costs(network) for network in (architecture.before, architecture.after or architecture.before)]
    start = architecture.before.architecture.edges
    sheets = [("before", start, distinct_cells(specs, start))]
    if architecture.changed:
        after = distinct_cells(specs, architecture.choices)
        is_new = [cell for cell in after if any(spec.name in architecture.changed for spec in cell.specs)]
        kept = sorted(is_new, key=lambda cell: -len(cell.cells))[:MOST_DRAWINGS]
        left = len(is_new) - len(kept)
        sheets.append(("after", architecture.choices, [cell for cell in after if cell in kept]))
    for when, choices, cells in sheets:
        for number, cell in enumerate(cells):
            title = f"{when.capitalize()}: {cell_names(cell.cells)}"
            note = _cost_note(cell, costs)
            shown = cell_chart(cell.specs, choices)
            about = f"The nodes and edges of {cell.how_many}, {when}. " + ", ".join(
                f"{row.source} to {row.target}: {row.operation}" for row in cell.specs
            )
            figure = create_figure(f"cells-{when}-{number}", title, about, shown, note, height_px=None)
            groups.setdefault(cell.cell_type, []).append(figure)
    return list(groups.items()), left


def _costs(network: NetworkTable) -> Mapping[str, EdgeRow]:
    return {row.name: row for row in network.rows}


def _cost_note(cell: DistinctCell, costs: Sequence[Mapping[str, EdgeRow]]) -> str:
    """What one of these cells costs before and after; the first of several."""
    parts = []
    for name, field in (("parameters", "parameters"), ("multiply-adds", "macs")):
        numbers = [sum(getattr(rows[spec.name], field) for spec in cell.specs) for rows in costs]
        parts.append(f"{name} {_arrow(*numbers)}")
    which = f"{cell.how_many}; {cell.cells[0]}: " if len(cell.cells) > 1 else ""
    return f"{which}{', '.join(parts)}"


def _arrow(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _theta_figures(history: ThetaHistory, architecture: RunArchitecture, adapt: AdaptSection) -> list[PageFigure]:
    moments = theta_moments(history, architecture.specs, adapt)
    ends = " At the right end of the slider stands what was fixed." if moments.is_fixed else ""
    slider = _slider_figure(moments, architecture, SIGNS["theta"] + ends, "+.2f")
    lines = [
        create_figure(
            entry.replace("_", "-"), f"{entry} over the steps",
            f"{entry} of each of {len(history.theta)} edges over the steps; those that changed are red.",
            theta_chart(history, entry),
        )
        for entry, index in ENTRIES.items()
        if len({each[index] for values in history.theta.values() for each in values}) > 1  # it moves
    ]  # fmt: skip
    return [slider, *lines, _margin_figure(history, architecture, adapt)]


def _slider_figure(moments: EdgeMoments, architecture: RunArchitecture, note: str, form: str) -> PageFigure:
    chart = edge_slider(
        moments,
        architecture.specs,
        architecture.choices,
        has_nodes=not are_in_a_row(architecture.before.architecture.model, architecture.specs),
        number_format=form,
    )
    name = "theta" if moments.unit == "step" else "scores"
    title = f"{name.capitalize()} on every edge{', over time' if moments.count > 1 else ''}"
    about = f"A cell, and a table of all edges, coloured by {name} at the {moments.unit} that the slider gives."
    return create_figure(f"edges-{name}", title, about, chart, note, height_px=None)


def _margin_figure(history: ThetaHistory, architecture: RunArchitecture, adapt: AdaptSection) -> PageFigure:
    """How far each edge is from the point at which it changes."""
    rows: list[dict[str, Any]] = []
    for spec in architecture.specs:
        value = lead(spec, history.theta[spec.name][-1], adapt) if spec.name in history.theta else None
        if value is not None:
            state = "changed" if spec.name in history.changed else "stayed"
            rows.append({"edge": spec.name, "operation": spec.operation, "lead": round(value, 4), "state": state})
    base = altair.Chart(altair.InlineData(values=rows))
    colour = altair.Color("state:N").scale(domain=["changed", "stayed"], range=[CHANGED, ACCENT]).title(None)
    ticks = base.mark_tick(thickness=2, size=20, opacity=0.75).encode(
        x=altair.X("lead:Q").title("lead of a change: above 0 it is made"),
        y=altair.Y("operation:N").title(None),
        color=colour,
        tooltip=["edge:N", "operation:N", altair.Tooltip("lead:Q").format("+.4f"), "state:N"],
    )
    rule = altair.Chart(altair.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[3, 3]).encode(x="zero:Q")
    nearest = min(rows, key=lambda row: abs(row["lead"])) if rows else None
    when = "At the fix" if history.fix_step is not None else f"At step {history.steps[-1]:,}"
    note = f"{when}, nearest: {nearest['edge']}, by {abs(nearest['lead']):.3f}." if nearest else ""
    about = "A tick for each edge at how far theta was from changing it, a row for each operation."
    height = 60 + 34 * len({row["operation"] for row in rows})
    return create_figure(
        "margins", "How far each edge was from flipping", about, altair.layer(ticks, rule), note, height_px=height
    )


def _score_figures(run: RunRecord, architecture: RunArchitecture) -> list[PageFigure]:
    adapt = run.recipe.adapt
    moments = score_moments(run, architecture)
    if adapt is None or moments is None:
        return []
    note = SIGNS.get(adapt.score, "Red edges have changed.") if adapt.score != "theta" else "Red edges have changed."
    form = "+.3f" if adapt.score == "removal" else ".1e"
    figures = [_slider_figure(moments, architecture, note, form)]
    if any(event["scores"] for event in run.of("choice")):
        figures.append(score_chart(run.of("choice"), adapt.score))
    return figures


def _cell_table(architecture: RunArchitecture) -> dict[str, Any]:
    """What each cell costs."""
    before, after = _costs(architecture.before), _costs(architecture.after or architecture.before)
    cells: dict[str, list[EdgeSpec]] = {}
    for spec in architecture.specs:
        cells.setdefault(spec.cell, []).append(spec)
    rows: list[Row] = []
    for cell, specs in cells.items():
        numbers = [
            _arrow(*(sum(getattr(table[s.name], field) for s in specs) for table in (before, after)))
            for field in ("parameters", "macs")
        ]
        changed = sum(spec.name in architecture.changed for spec in specs)
        rows.append((cell or "the network", f"{changed} of {len(specs)}", *numbers))
    head = ("cell", "edges changed", "parameters", "multiply-adds")
    return _table("Each cell", head, rows, None)


def _saved_table(architecture: RunArchitecture) -> dict[str, Any]:
    """What every change saved, the largest first, and in all."""
    before, after = architecture.before, architecture.after
    assert after is not None
    sign, word = (-1, "added") if architecture.grows else (1, "saved")
    pairs = [(old, new) for old, new in zip(before.rows, after.rows, strict=True)]
    touched = [(old, new) for old, new in pairs if old.name in architecture.changed or old.macs != new.macs]
    touched.sort(key=lambda pair: sign * (pair[1].macs - pair[0].macs))
    alike: dict[Row, list[str]] = {}
    for old, new in touched:
        now = new.operation
        if old.name not in architecture.changed:
            now += ", which is read now" if new.macs > old.macs else ", which nothing reads now"
        saved = _saved(sign, old.parameters, new.parameters), _saved(sign, old.macs, new.macs)
        alike.setdefault((old.operation, now, *saved), []).append(old.name)
    rows = [(_shortened(names), *what) for what, names in alike.items()]
    inside = [
        [sum(getattr(row, field) for row in net.rows) for net in (before, after)] for field in ("parameters", "macs")
    ]
    whole = [(before.parameters, after.parameters), (before.macs, after.macs)]
    outside = [
        _saved(sign, all_old - old, all_new - new) for (all_old, all_new), (old, new) in zip(whole, inside, strict=True)
    ]
    rest = [("outside the edges", "", "", *outside)] if outside != ["0", "0"] else []
    total = ("in all", "", "", *(_saved(sign, *pair) for pair in whole))
    head = ("edges", "was", "is now", f"parameters {word}, each", f"multiply-adds {word}, each")
    return _table(f"What changed, and what it {word}", head, rows, [*rest, total])


def _shortened(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _saved(sign: int, before: int, after: int) -> str:
    return f"{sign * (before - after):,}".replace("-", "\u2212")


def _table(title: str, head: Row, rows: Sequence[Row], totals: Sequence[Row] | None) -> dict[str, Any]:
    return {
        "title": title, "head": head, "rows": rows[:MOST_ROWS], "left": max(0, len(rows) - MOST_ROWS),
        "totals": totals or [], "numbers": len(head) - 2,
    }  # fmt: skip
