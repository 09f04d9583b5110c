"""Cells as DOT and Mermaid text: every edge once, changed ones red, and names that can't leave their quotes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from script_calls import run_script

from ssl_adapt.report.cell_text import CHANGED, dot_text, mermaid_text

SPECS = timm.create_model("resnet20_nat", channels=4, cells=3).edge_specs()
CHOICES = {"layer1.0.edge_0_2": "identity", "layer1.0.edge_2_3": "none"}


def test_dot_has_every_distinct_cell_with_its_edges() -> None:
    text = dot_text(SPECS, CHOICES, "a title")
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("digraph cells {", "}")
    assert text.count("{") == text.count("}") == 3, "the graph, a normal and a reduction cell"
    edges = [line for line in lines if "->" in line]
    assert len(edges) == 2 * 8
    statement = r'    c\d_\d -> c\d_\d \[label="[^"]*", color="#\w{6}", fontcolor="#\w{6}"(, style=dotted)?\];'
    assert all(re.fullmatch(statement, line) for line in edges)
    red = [line for line in edges if CHANGED in line]
    assert [re.search(r'label="([^"]*)"', line)[1] for line in red] == ["none → identity", "conv_3x3 → none"]
    assert 'label="reduction: layer2.0, layer3.0"' in text


def test_mermaid_styles_the_edges_that_it_means() -> None:
    lines = mermaid_text(SPECS, CHOICES).splitlines()
    assert lines[0] == "flowchart LR"
    edges = [line for line in lines if "-->" in line or "-.->" in line]
    styles = [line for line in lines if "linkStyle" in line]
    assert len(edges) == len(styles) == 2 * 8
    for index, (edge, style) in enumerate(zip(edges, styles, strict=True)):
        assert style.startswith(f"  linkStyle {index} stroke:")
        assert (CHANGED in style) == ("→" in edge)
        assert ("-.->" in edge) == ("none" in edge.split("→")[-1] and "→ identity" not in edge)
    assert sum(line.strip() == "end" for line in lines) == sum("subgraph" in line for line in lines) == 2


@pytest.mark.parametrize("hostile", ['a"]; b [label="', 'x"] --> y["', "back\\slash", "two\nlines", "<b>&#59;"])
def test_names_stay_in_their_quotes(hostile: str) -> None:
    specs = [replace(spec, cell_type=hostile, operation=hostile) for spec in SPECS[:2]]
    dot = dot_text(specs, {}, hostile)
    assert re.sub(r'"(\\.|[^"\\])*"', "", dot).count('"') == 0
    assert len(dot.splitlines()) == len(dot_text(SPECS[:2], {}, "title").splitlines())
    lines = mermaid_text(specs, {}).splitlines()
    assert len(lines) == len(mermaid_text(SPECS[:2], {}).splitlines())
    for line in lines:
        for text in re.findall(r'"(.*)"', line):
            assert not set(text) & set('"<>[]\\&'), "they are written by their numbers"


def test_inspect_writes_both(tmp_path: Path) -> None:
    for name in ("cells.dot", "cells.mmd"):
        done = run_script("model=resnet20", f"drawing={tmp_path / name}", script="inspect_network.py")
        assert done.code == 0, done.err
    assert "resnet20" in (tmp_path / "cells.dot").read_text()
    assert 'title: "resnet20"' in (tmp_path / "cells.mmd").read_text()
    refused = run_script("theta=a", f"plot={tmp_path / 'theta.dot'}", script="report.py")
    assert refused.code == 2
    assert "expected .svg, .png or .pdf file" in refused.err
