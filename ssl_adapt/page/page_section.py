"""What a page is made of: sections of text and tables, and figures, which are Vega-Lite charts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import altair
from markupsafe import Markup


class FigureTable(NamedTuple):
    """The values of a figure as text, for those who can't see it or want the numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class PageFigure:
    """A chart and what is said about it.

    Attributes:
        name: of its file and its element, unique on the page: lower-case letters, digits and hyphens.
        title: above the chart.
        description: what it shows in a sentence, for those who can't see it.
        spec: Vega-Lite.
        note: a line below it: how to read it, or what to do with it.
        table: its values, where they are few.
    """

    name: str
    title: str
    description: str
    spec: Mapping[str, Any]
    note: str = ""
    table: FigureTable | None = None


@dataclass(frozen=True)
class PageSection:
    """A part of the page with a heading of its own.

    Attributes:
        name: of its element and its template, NAME.html.
        title: the heading.
        values: what the template uses beside the section itself.
        figures: by their names; the template places them by `figure("NAME")`.
        files: texts that are written beside its figures, by the names of their files.
    """

    name: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    figures: Sequence[PageFigure] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def create_figure(
    name: str, title: str, description: str, chart: altair.TopLevelMixin, note: str = "", *,
    height_px: int | None = 220, table: FigureTable | None = None,
) -> PageFigure:  # fmt: skip
    """A figure from an Altair chart, as wide as the place that it gets; None keeps the chart's own size."""
    if height_px is not None:
        chart = chart.properties(width="container", height=height_px)
    spec = chart.to_dict()
    return PageFigure(name, title, description, {"description": description, **spec}, note, table)


def as_script(value: object) -> Markup:
    """The value as JSON that may stand inside a <script> element, whatever text is in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
