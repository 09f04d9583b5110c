"""Charts of cells: inputs on the left, nodes in a row, edges as arrows, changed edges in red."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair

from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.report.cell_layout import LABEL_PX, NODE_PX, CellLayout, lay_out_cell, text_width
from ssl_adapt.report.cell_shapes import edge_shapes, node_shapes
from ssl_adapt.report.chart_file import Chart
from ssl_adapt.report.distinct_cells import DistinctCell, cell_names, change_label, distinct_cells, is_changed

PLAIN, CHANGED, IDENTITY, NONE = "currentColor", "#d62839", "#3b82c4", "#878e96"  # readable on white and on black
COLOURS = {"operation": PLAIN, "original": PLAIN, "identity": IDENTITY, "none": NONE}
DOTTED = [0.1, 4.5]  # with round caps, dots as large as the line is wide
PAGE_WIDTH, MARGIN, CAPTION_LINE, CAPTION_PX = 1540.0, 24.0, 17.0, 12
LEGEND = "black: an operation; blue: the identity; dotted: none, which computes nothing; red: changed"
Rows = list[dict[str, Any]]


def cells_chart(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], title: str = "") -> Chart:
    """All distinct cells of a network on one sheet, with captions.

    Args:
        specs: the edges in forward order.
        choices: the choice of each of them, by name; "original" where it is missing.
        title: above the drawing.
    """
    cells = distinct_cells(specs, choices)
    layouts = [lay_out_cell(cell.specs, edge_labels(cell.specs, choices)) for cell in cells]
    captions = [_caption(cell, layout.width) for cell, layout in zip(cells, layouts, strict=True)]
    sizes = [
        (
            max(layout.width, *(text_width(line, CAPTION_PX) for line in caption)),
            layout.top - layout.bottom + CAPTION_LINE * len(caption),
        )
        for layout, caption in zip(layouts, captions, strict=True)
    ]
    above = 40.0 if title else 0.0
    corners, width, height = _arrange(sizes)
    edges, nodes, words = Rows(), Rows(), Rows()
    for cell, layout, caption, (x, y) in zip(cells, layouts, captions, corners, strict=True):
        for index, line in enumerate(caption):
            words.append({"x": x, "y": above + y + CAPTION_LINE * (index + 0.5), "text": line, "is_head": index == 0})
        top = above + y + CAPTION_LINE * len(caption)
        edges += edge_rows(layout, cell.specs, choices, x, top)
        nodes += node_shapes(layout, x, top)
    legend = textwrap.wrap(LEGEND, max(30, int(width / 7)))
    for index, line in enumerate(legend):
        words.append({"x": MARGIN, "y": above + height + CAPTION_LINE * (index + 0.5), "text": line, "is_head": False})
    layers = [*edge_layers(edges), *node_layers(nodes), *_word_layers(words)]
    if title:
        layers.append(_text([{"x": width / 2, "y": 24.0, "text": title}], "text", size=17))
    return altair.layer(*layers).properties(width=width, height=above + height + CAPTION_LINE * (len(legend) + 0.5))


def cell_chart(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice]) -> Chart:
    """One cell, without a caption; the arguments are those of `cells_chart`."""
    layout = lay_out_cell(specs, edge_labels(specs, choices))
    layers = [*edge_layers(edge_rows(layout, specs, choices)), *node_layers(node_shapes(layout))]
    return altair.layer(*layers).properties(width=layout.width, height=layout.top - layout.bottom)


def edge_labels(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice]) -> dict[str, str]:
    """What each edge computes, by its name."""
    return {spec.name: change_label(spec, choices.get(spec.name, "original")) for spec in specs}


def edge_rows(
    layout: CellLayout, specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], left: float = 0, top: float = 0
) -> Rows:
    """The edges of a cell as `edge_layers` takes them, changed ones last, so that they lie above the others."""
    labels, rows = edge_labels(specs, choices), Rows()
    by_name = {spec.name: spec for spec in specs}
    for row in edge_shapes(layout, labels, left, top):
        spec = by_name[row["edge"]]
        choice = choices.get(spec.name, "original")
        now = spec.kind if choice == "original" else choice
        is_red = is_changed(spec, choice)
        look = {"colour": CHANGED if is_red else COLOURS[now], "dash": DOTTED if now == "none" else []}
        order = 2 if is_red else 0 if now == "none" else 1
        rows.append({**row, "label": labels[spec.name], **look, "order": order})
    return sorted(rows, key=lambda row: int(row.pop("order")))


def edge_layers(rows: Rows, **encodings: Any) -> list[Chart]:
    """Lines, arrowheads and labels of edges.

    Args:
        rows: of `edge_shapes`, each with `label`, `colour` and `dash`.
        encodings: further ones, or others than those.
    """
    base = altair.Chart(altair.InlineData(values=rows))
    look = {"color": altair.Color("colour:N").scale(None).legend(None), "tooltip": ["edge:N", "label:N"], **encodings}
    width = {"strokeWidth": look.pop("strokeWidth")} if "strokeWidth" in look else {}
    dash = look.pop("strokeDash", altair.StrokeDash("dash:N").scale(None).legend(None))
    text = look.pop("text", altair.Text("label:N"))
    # a path of its own as the symbol, whose size of 4 leaves it at the scale of the pixels
    origin: dict[str, Any] = {"x": altair.value(0), "y": altair.value(0)}
    lines = base.mark_point(size=4, filled=False, opacity=1, strokeWidth=1.5, strokeCap="round").encode(
        **origin, shape=altair.Shape("line:N").scale(None).legend(None), strokeDash=dash, **width, **look
    )
    heads = base.mark_point(size=4, filled=True, opacity=1, strokeWidth=0).encode(
        **origin, shape=altair.Shape("head:N").scale(None).legend(None), **look
    )
    labels = base.mark_text(fontSize=LABEL_PX, baseline="middle").encode(**_at("x", "y"), text=text, **look)
    return [lines, heads, labels]


def node_layers(rows: Rows) -> list[Chart]:
    """Boxes of nodes with their names; inputs are blue."""
    base = altair.Chart(altair.InlineData(values=rows))
    sides = _at("left", "upper")
    boxes = base.mark_rect(
        cornerRadius=6, fill=altair.expr("datum.is_input ? '#3b82c4' : '#808890'"), fillOpacity=0.16,
        stroke="#808890", strokeWidth=1,
    ).encode(**sides, x2="right:Q", y2="lower:Q", tooltip=altair.value(None))  # fmt: skip
    return [boxes, _text(rows, "node", size=NODE_PX)]


def _text(rows: Rows, field: str, *, size: float, **properties: Any) -> Chart:
    mark = altair.Chart(altair.InlineData(values=rows)).mark_text(
        fontSize=size, baseline="middle", color=PLAIN, **properties
    )
    return mark.encode(**_at("x", "y"), text=f"{field}:N", tooltip=altair.value(None))


def _word_layers(rows: Rows) -> list[Chart]:
    heads = _text([row for row in rows if row["is_head"]], "text", size=CAPTION_PX, align="left", fontWeight="bold")
    others = [row for row in rows if not row["is_head"]]
    return [heads, _text(others, "text", size=CAPTION_PX - 1, align="left", opacity=0.7)]


def _at(x: str, y: str) -> dict[str, Any]:
    """The place, in pixels from the upper left corner."""
    return {"x": altair.X(f"{x}:Q").scale(None).axis(None), "y": altair.Y(f"{y}:Q").scale(None).axis(None)}


def _caption(cell: DistinctCell, width: float) -> list[str]:
    """Lines: the type and number of the cells, then their paths."""
    names = textwrap.wrap(cell_names(cell.cells), max(30, int(width / 7)))
    return [f"{cell.cell_type}, {cell.how_many}", *names]


def _arrange(sizes: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], float, float]:
    """The upper left corner of every (width, height) box, in rows, and the size of the page."""
    rows: list[list[int]] = []
    used = PAGE_WIDTH
    for index, (width, _) in enumerate(sizes):
        if used + width + 2 * MARGIN > PAGE_WIDTH:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += width + 2 * MARGIN
    page_width = max(sum(sizes[i][0] + 2 * MARGIN for i in row) for row in rows)
    corners, top = [(0.0, 0.0)] * len(sizes), 0.0
    for row in rows:
        x = MARGIN
        for index in row:
            corners[index] = (x, top + MARGIN)
            x += sizes[index][0] + 2 * MARGIN
        top += max(sizes[i][1] for i in row) + 2 * MARGIN
    return corners, page_width, top
