"""The layout of a cell: positions of its nodes, arrows and labels, in pixels; y is 0 on the row of inner nodes.

Inputs are in the first column, one above the other, and every other node has a column of its own. An edge to the next
column is straight; any other takes a lane, a horizontal line above or below the row that no other edge has between the
same columns. A label is between two columns on its own edge, so that labels do not overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from PIL import ImageFont

from ssl_adapt.adaptation.edge import EdgeSpec

LABEL_PX, NODE_PX = 11, 12  # sizes of the fonts
BOX_HEIGHT = 26.0
INPUT_GAP, LANE_GAP = 80.0, 30.0
SHORTEST_GAP, LABEL_MARGIN = 100.0, 70.0  # between columns, and what a label leaves there for bends and arrowheads
BEND, HEAD, PORT_GAP = 26.0, 11.0, 10.0  # HEAD is an arrowhead's length, to which a line runs straight
CURVE_POINTS = 12  # of the straight pieces that a curve becomes
WIDEST_FONT = 1.2  # as wide as DejaVu Sans, which is wide, in terms of the font that is measured

Point = tuple[float, float]
Line = tuple[Point, ...]


@dataclass(frozen=True)
class Node:
    """A box with its middle and half its width."""

    name: str
    x: float
    y: float
    half_width: float
    is_input: bool


@dataclass(frozen=True)
class Arrow:
    """An edge's line, from its source to its target, and the middle of its label."""

    spec: EdgeSpec
    line: Line
    label_at: Point


@dataclass(frozen=True)
class CellLayout:
    """A cell that reaches from x = 0 to `width` and from y = `bottom` to `top`."""

    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    width: float
    bottom: float
    top: float


@dataclass(frozen=True)
class _Route:
    """The route of an edge: the columns it joins, and its lane: 0 is straight, 1, 2, ... above, -1, -2, ... below."""

    spec: EdgeSpec
    start: int
    end: int
    lane: int

    @property
    def label_gap(self) -> int:
        """The gap between two columns that holds the label; 0 is the one after the inputs."""
        return (self.start + self.end) // 2 if self.lane else self.start

    @property
    def level(self) -> float:
        """The y of the lane; the first one is level with the upper, or the lower, of two inputs."""
        side = 1 if self.lane > 0 else -1
        return side * (INPUT_GAP / 2 + (abs(self.lane) - 1) * LANE_GAP)


def lay_out_cell(specs: Sequence[EdgeSpec], labels: Mapping[str, str]) -> CellLayout:
    """The layout of one cell's edges, with a label for each of them, by the edge's name."""
    inputs, inner = _order_nodes(specs)
    columns = {**dict.fromkeys(inputs, 0), **{node: 1 + index for index, node in enumerate(inner)}}
    heights = {node: ((len(inputs) - 1) / 2 - index) * INPUT_GAP for index, node in enumerate(inputs)}
    routes = _route(specs, columns, heights)
    half_widths = {node: max(19.0, text_width(node, NODE_PX) / 2 + 9) for node in columns}
    gaps = [SHORTEST_GAP] * len(inner)
    for route in routes:
        gaps[route.label_gap] = max(gaps[route.label_gap], text_width(labels[route.spec.name], LABEL_PX) + LABEL_MARGIN)
    places = [max(half_widths[node] for node in inputs)]
    for gap in gaps:
        places.append(places[-1] + gap)
    nodes = {
        name: Node(name, places[column], heights.get(name, 0.0), half_widths[name], name in heights)
        for name, column in columns.items()
    }
    arrows = []
    for route in routes:
        middle = (places[route.label_gap] + places[route.label_gap + 1]) / 2
        source, target = nodes[route.spec.source], nodes[route.spec.target]
        if route.lane:
            line, height = _lane_line(route, routes, source, target), route.level
        else:
            entering = [nodes[r.spec.source].y for r in routes if r.spec.target == target.name and not r.lane]
            line, height = _straight_line(source, target, sorted(entering).index(source.y), len(entering))
        arrows.append(Arrow(route.spec, line, (middle, height)))
    levels = [route.level for route in routes if route.lane] + [node.y for node in nodes.values()]
    edge = BOX_HEIGHT / 2 + 5
    return CellLayout(
        tuple(nodes.values()),
        tuple(arrows),
        places[-1] + half_widths[inner[-1]],
        min(levels) - edge,
        max(levels) + edge,
    )


def text_width(text: str, size_px: float) -> float:
    """The width of a text in pixels, in whatever sans-serif font it will be drawn: seldom less than there."""
    return WIDEST_FONT * _font().getlength(text) * size_px / 100


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(100)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _order_nodes(specs: Sequence[EdgeSpec]) -> tuple[list[str], list[str]]:
    """The inputs, which no edge enters, and the other nodes, each of them after those that it follows from."""
    sources: dict[str, set[str]] = {}
    for spec in specs:
        sources.setdefault(spec.target, set()).add(spec.source)
    inputs = [node for node in dict.fromkeys(spec.source for spec in specs) if node not in sources]
    waiting, inner = sorted(sources, key=lambda node: node.rstrip("+") == "out"), list[str]()
    while waiting:
        node = next(n for n in waiting if sources[n] <= {*inputs, *inner})
        waiting.remove(node)
        inner.append(node)
    return inputs, inner


def _route(specs: Sequence[EdgeSpec], columns: Mapping[str, int], heights: Mapping[str, float]) -> list[_Route]:
    """A lane for every edge; short edges come first and so lie near the row of nodes."""
    routes: list[_Route] = []
    straight: set[tuple[str, str]] = set()
    for spec in sorted(specs, key=lambda spec: columns[spec.target] - columns[spec.source]):
        start, end = columns[spec.source], columns[spec.target]
        if end - start == 1 and (spec.source, spec.target) not in straight:
            straight.add((spec.source, spec.target))
            routes.append(_Route(spec, start, end, 0))
            continue
        taken = {route.lane for route in routes if route.start < end and start < route.end}
        height = heights.get(spec.source, 0.0)
        sides = [1, -1] if height == 0 else [1 if height > 0 else -1]
        free = (side * lane for lane in range(1, len(specs) + 1) for side in sides)
        routes.append(_Route(spec, start, end, next(lane for lane in free if lane not in taken)))
    return routes


def _straight_line(source: Node, target: Node, index: int, count: int) -> tuple[Line, float]:
    """From the right side of a box to the left side of the next, there as the `index`-th of `count`; its middle's y."""
    start = source.x + source.half_width, source.y
    end = target.x - target.half_width, (index - (count - 1) / 2) * PORT_GAP
    middle, neck = (start[0] + end[0]) / 2, (end[0] - HEAD, end[1])
    if start[1] == end[1]:
        return (start, end), end[1]
    return (*_curve(start, (middle, start[1]), (middle, end[1]), neck), end), (start[1] + end[1]) / 2


def _lane_line(route: _Route, routes: Sequence[_Route], source: Node, target: Node) -> Line:
    """Up (or down) to the lane, along it, and back to the row; lines that share a box touch it side by side."""
    side = 1 if route.lane > 0 else -1
    level = route.level
    beside = [r for r in routes if r.lane * side > 0]
    leaving = sorted((r for r in beside if r.spec.source == source.name), key=lambda r: -abs(r.lane))
    entering = sorted((r for r in beside if r.spec.target == target.name), key=lambda r: abs(r.lane))
    returns = any(r.spec.source == target.name for r in beside)
    goes_back = any(r.spec.target == source.name for r in beside)
    end_x = target.x + _port(entering.index(route), len(entering), target, -1 if returns else 0)
    bend = min(BEND, abs(level) - BOX_HEIGHT / 2 - HEAD)
    points: list[Point]
    if source.y:  # an input beside the row: from its right side
        start = source.x + source.half_width, source.y
        turn = start[0] + 48
        points = _curve(start, (start[0] + 26, source.y), (turn - 26, level), (turn, level))
        points = points if level != source.y else [start]
    else:
        x = source.x + _port(leaving.index(route), len(leaving), source, 1 if goes_back else 0)
        points = [(x, side * BOX_HEIGHT / 2), *_curve((x, level - side * bend), (x, level), (x + bend, level))]
    points += _curve((end_x - bend, level), (end_x, level), (end_x, level - side * bend))
    return *points, (end_x, side * BOX_HEIGHT / 2)


def _curve(*controls: Point) -> list[Point]:
    """Points of the Bézier curve, its ends among them."""
    curve = []
    for index in range(CURVE_POINTS + 1):
        left, share = list(controls), index / CURVE_POINTS
        while len(left) > 1:  # de Casteljau's algorithm
            left = [(x + share * (next_x - x), y + share * (next_y - y)) for (x, y), (next_x, next_y) in pairwise(left)]
        curve.append(left[0])
    return curve


def _port(index: int, count: int, node: Node, half: int) -> float:
    """Where on a box's upper or lower side a line ends: over its whole width, or its left (-1) or right (1) half."""
    gap = min(PORT_GAP, 1.6 * node.half_width / (2 if half else 1) / max(count - 1, 1))
    return half * node.half_width / 2 + (index - (count - 1) / 2) * gap
