"""Cells as text: DOT, which Graphviz lays out, and Mermaid, which GitHub and many wikis draw."""

from collections.abc import Mapping, Sequence

from ssl_adapt.adaptation.edge import Choice, EdgeSpec
from ssl_adapt.report.distinct_cells import cell_names, change_label, distinct_cells, is_changed

CHANGED, IDENTITY, NONE, PLAIN = "#cc0000", "#3b82c4", "#878e96", "#222222"
COLOURS = {"operation": PLAIN, "original": PLAIN, "identity": IDENTITY, "none": NONE}


def dot_text(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], title: str = "") -> str:
    """The distinct cells as one directed graph in DOT, each a cluster: `dot -Tsvg cells.dot` draws it."""
    lines = [
        "digraph cells {",
        '  graph [rankdir=LR, fontname="Helvetica", labelloc=t, label=' + _quoted(title) + "];",
        '  node [shape=box, style="rounded,filled", fillcolor="#f5f5f3", fontname="Helvetica"];',
        '  edge [fontname="Helvetica", fontsize=10];',
    ]
    for number, cell in enumerate(distinct_cells(specs, choices)):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(_caption(cell.cell_type, cell.cells))};"]
        names, inputs = _nodes(cell.specs)
        for node, place in names.items():
            fill = ', fillcolor="#dce9f7"' if node in inputs else ""
            lines.append(f"    c{number}_{place} [label={_quoted(node.rstrip('+'))}{fill}];")
        for spec in cell.specs:
            colour, is_none, label = _look(spec, choices)
            style = ", style=dotted" if is_none else ""
            ends = f"c{number}_{names[spec.source]} -> c{number}_{names[spec.target]}"
            lines.append(f'    {ends} [label={_quoted(label)}, color="{colour}", fontcolor="{colour}"{style}];')
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid_text(specs: Sequence[EdgeSpec], choices: Mapping[str, Choice], title: str = "") -> str:
    """The distinct cells as a Mermaid flowchart, each a subgraph."""
    head = ["---", f"title: {_quoted(title)}", "---"] if title else []
    lines, styles, links = [*head, "flowchart LR"], [], 0
    for number, cell in enumerate(distinct_cells(specs, choices)):
        lines += [f'  subgraph c{number}["{_entities(_caption(cell.cell_type, cell.cells))}"]', "    direction LR"]
        names, inputs = _nodes(cell.specs)
        for node, place in names.items():
            shape = ('(["', '"])') if node in inputs else ('["', '"]')
            lines.append(f"    c{number}_{place}{shape[0]}{_entities(node.rstrip('+'))}{shape[1]}")
        for spec in cell.specs:
            colour, is_none, label = _look(spec, choices)
            arrow = "-.->" if is_none else "-->"
            ends = f"c{number}_{names[spec.source]}", f"c{number}_{names[spec.target]}"
            lines.append(f'    {ends[0]} {arrow}|"{_entities(label)}"| {ends[1]}')
            styles.append(f"  linkStyle {links} stroke:{colour},color:{colour}")
            links += 1
        lines.append("  end")
    return "\n".join(lines + styles) + "\n"


def _nodes(specs: Sequence[EdgeSpec]) -> tuple[dict[str, int], set[str]]:
    """The nodes of a cell, numbered, and which are inputs."""
    nodes = dict.fromkeys(node for spec in specs for node in (spec.source, spec.target))
    inputs = {*nodes} - {spec.target for spec in specs}
    return {node: index for index, node in enumerate(nodes)}, inputs


def _look(spec: EdgeSpec, choices: Mapping[str, Choice]) -> tuple[str, bool, str]:
    """Colour, whether nothing is computed, and what is written."""
    choice = choices.get(spec.name, "original")
    now = spec.kind if choice == "original" else choice
    return CHANGED if is_changed(spec, choice) else COLOURS[now], now == "none", change_label(spec, choice)


def _caption(cell_type: str, cells: Sequence[str]) -> str:
    return f"{cell_type}: {cell_names(cells)}"


def _quoted(text: str) -> str:
    """As DOT, and YAML, have a text in quotes."""
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _entities(text: str) -> str:
    """As Mermaid has any text within quotes: characters that could end it, or mean something, by their numbers."""
    return "".join(c if c.isalnum() or c in " .,_-:→/()" else f"#{ord(c)};" for c in " ".join(text.split()))
