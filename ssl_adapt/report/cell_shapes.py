"""The shapes of a drawn cell as rows of data: paths as SVG has them, boxes and places of labels, y downwards."""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from ssl_adapt.report.cell_layout import BOX_HEIGHT, HEAD, LABEL_PX, CellLayout, Line, Point, text_width

Box = tuple[float, float, float, float]  # left, lower, right, upper


def edge_shapes(layout: CellLayout, labels: Mapping[str, str], left: float = 0, top: float = 0) -> list[dict[str, Any]]:
    """A row for each edge: its name, the paths of its line and its arrowhead, and the middle of its label.

    Args:
        layout: of the cell.
        labels: by the edge's name; no line runs through one.
        left: of the cell in the drawing.
        top: the same.
    """
    boxes = [_label_box(arrow.label_at, labels[arrow.spec.name]) for arrow in layout.arrows]

    def path(points: Iterable[Point]) -> str:
        return "L".join(f"{round(left + x, 1):g},{round(top + layout.top - y, 1):g}" for x, y in points)

    rows = []
    for arrow in layout.arrows:
        pieces = _outside((*arrow.line[:-1], _before(arrow.line, HEAD / 2)), boxes)
        rows.append(
            {
                "edge": arrow.spec.name,
                "line": "".join(f"M{path(piece)}" for piece in pieces),
                "head": f"M{path(_arrowhead(arrow.line))}Z",
                "x": round(left + arrow.label_at[0], 1),
                "y": round(top + layout.top - arrow.label_at[1], 1),
            }
        )
    return rows


def node_shapes(layout: CellLayout, left: float = 0, top: float = 0) -> list[dict[str, Any]]:
    """A row for each node: its name, the sides and the middle of its box, and whether it is an input."""
    return [
        {
            "node": node.name.rstrip("+"),
            "left": round(left + node.x - node.half_width, 1),
            "right": round(left + node.x + node.half_width, 1),
            "upper": round(top + layout.top - node.y - BOX_HEIGHT / 2, 1),
            "lower": round(top + layout.top - node.y + BOX_HEIGHT / 2, 1),
            "x": round(left + node.x, 1),
            "y": round(top + layout.top - node.y, 1),
            "is_input": node.is_input,
        }
        for node in layout.nodes
    ]


def _label_box(middle: Point, label: str) -> Box:
    half_width, half_height = text_width(label, LABEL_PX) / 2 + 3, LABEL_PX * 0.7
    return middle[0] - half_width, middle[1] - half_height, middle[0] + half_width, middle[1] + half_height


def _outside(line: Line, boxes: Iterable[Box]) -> list[list[Point]]:
    """The pieces of a line that lie in none of the boxes."""
    pieces: list[list[Point]] = [list(line)]
    for box in boxes:
        pieces = [part for piece in pieces for part in _outside_one(piece, box)]
    return pieces


def _outside_one(line: list[Point], box: Box) -> list[list[Point]]:
    pieces: list[list[Point]] = [[line[0]]]
    for start, end in pairwise(line):
        enters, leaves = _shares_inside(start, end, box)
        if enters < leaves:
            if enters > 0:
                pieces[-1].append(_between(start, end, enters))
            pieces.append([_between(start, end, leaves)])
            if leaves == 1:
                continue
        pieces[-1].append(end)
    return [piece for piece in pieces if len(piece) > 1]


def _shares_inside(start: Point, end: Point, box: Box) -> tuple[float, float]:
    """Which part of the way from start to end is inside the box: from and to; from 1 to 0 if none is."""
    enters, leaves = 0.0, 1.0
    for axis in (0, 1):
        way, low, high = end[axis] - start[axis], box[axis] - start[axis], box[axis + 2] - start[axis]
        if way == 0:
            if not low < 0 < high:
                return 1.0, 0.0
            continue
        enters, leaves = max(enters, min(low / way, high / way)), min(leaves, max(low / way, high / way))
    return (enters, leaves) if enters < leaves else (1.0, 0.0)


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _before(line: Line, distance: float) -> Point:
    """The point on the last stretch of a line that is so far from its end."""
    return _between(line[-1], line[-2], min(1.0, distance / math.dist(line[-1], line[-2])))


def _arrowhead(line: Line) -> list[Point]:
    """A triangle at the end of a line whose last stretch is level or upright."""
    (from_x, from_y), (x, y) = line[-2:]
    length = math.hypot(x - from_x, y - from_y)
    ahead_x, ahead_y = HEAD * (x - from_x) / length, HEAD * (y - from_y) / length
    back_x, back_y = x - ahead_x, y - ahead_y
    return [(x, y), (back_x - ahead_y / 3, back_y + ahead_x / 3), (back_x + ahead_y / 3, back_y - ahead_x / 3)]
