"""The shapes of drawn cells: lines that leave the labels free, and end at the nodes that they join."""

import re

import pytest
import timm

from ssl_adapt.report.cell_layout import LABEL_PX, lay_out_cell, text_width
from ssl_adapt.report.cell_shapes import edge_shapes, node_shapes


def points_of(path: str) -> list[list[tuple[float, float]]]:
    """The pieces of a path as SVG has it, each a list of points."""
    return [[tuple(map(float, point.split(","))) for point in piece.split("L")] for piece in path.split("M")[1:]]


@pytest.mark.parametrize("name", ["resnet20_nat", "resnet50_cifar", "darts"])
def test_lines_leave_labels_free_and_join_their_nodes(name: str) -> None:
    cells: dict[str, list] = {}
    for spec in timm.create_model(name).edge_specs():
        cells.setdefault(spec.cell_type, []).append(spec)
    for specs in cells.values():
        own = [spec for spec in specs if spec.cell == specs[0].cell]
        labels = {spec.name: f"{spec.operation} → identity" for spec in own}
        layout = lay_out_cell(own, labels)
        edges = edge_shapes(layout, labels, left=10, top=5)
        nodes = {row["node"]: row for row in node_shapes(layout, left=10, top=5)}
        assert len(edges) == len(own)
        for spec, edge in zip([arrow.spec for arrow in layout.arrows], edges, strict=True):
            assert edge["edge"] == spec.name
            pieces = points_of(edge["line"])
            assert len(pieces) > 1, "the label parts the line"
            for other in edges:
                half = text_width(labels[other["edge"]], LABEL_PX) / 2
                for x, y in (point for piece in pieces for point in piece):
                    assert abs(x - other["x"]) >= half or abs(y - other["y"]) >= LABEL_PX / 2
            source, target = nodes[spec.source], nodes[spec.target.rstrip("+")]
            [[tip, *_]] = points_of(edge["head"].rstrip("Z"))
            for node, (x, y) in ((source, pieces[0][0]), (target, tip)):
                assert node["left"] - 0.2 <= x <= node["right"] + 0.2
                assert node["upper"] - 0.2 <= y <= node["lower"] + 0.2
    assert re.fullmatch(r"(M-?[\d.]+,-?[\d.]+(L-?[\d.]+,-?[\d.]+)+)+", edges[0]["line"])
