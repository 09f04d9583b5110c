"""Writes the page of a run, `report.html`, and its figures."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssl_adapt.page.cells_section import cells_section
from ssl_adapt.page.chart_style import chart_config
from ssl_adapt.page.curves_section import curves_section
from ssl_adapt.page.overview_section import overview_section
from ssl_adapt.page.page_section import PageSection, as_script
from ssl_adapt.report.chart_file import FONT, VEGA_LITE, write_chart
from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.runs.run_record import RunRecord, read_run

PAGE = "report.html"
FILE_WIDTH_PX = 360  # of a figure's file, which is that of a column with letters of 8 pt; the page has more room
Sections = Callable[[RunRecord], PageSection | None]
SECTIONS: Sequence[Sections] = (overview_section, curves_section, cells_section)


def write_report(run: str, page: str | None = None, figures: str | None = None) -> list[str]:
    """Write the page of the run in a folder, and its figures as files; returns a line for each.

    Args:
        run: the folder of the run.
        page: the file of the page; None: `report.html` in that folder.
        figures: the folder for NAME.svg and NAME.pdf of every figure; None: they are not written.

    Raises:
        ValueError: if it is not the folder of a run; the message says what to type.
    """
    folder = Path(os.path.expanduser(run))
    path = folder / PAGE if page is None else Path(os.path.expanduser(page))
    sections = create_sections(read_run(folder))
    write_text(path, render_page(folder.resolve().name, sections))
    lines = [f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, without a network"]
    if figures is not None:
        files = write_figures(sections, Path(os.path.expanduser(figures)))
        lines.append(f"{figures}: {len(files)} files")
    return lines


def create_sections(run: RunRecord) -> list[PageSection]:
    """The sections that there is something to say in."""
    return [section for create in SECTIONS if (section := create(run)) is not None]


def write_figures(sections: Sequence[PageSection], folder: Path) -> list[Path]:
    """Write every figure as NAME.svg and NAME.pdf, and the texts beside them; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for figure in [figure for section in sections for figure in section.figures]:
        spec = dict(figure.spec)
        if spec.get("width") == "container":
            spec["width"] = FILE_WIDTH_PX
        for suffix in (".svg", ".pdf"):
            files.append(folder / f"{figure.name}{suffix}")
            write_chart(spec, files[-1], chart_config() | {"font": FONT})
    for name, text in [file for section in sections for file in section.files.items()]:
        files.append(folder / name)
        files[-1].write_text(text, encoding="utf-8")
    return files


def render_page(title: str, sections: Sequence[PageSection]) -> str:
    """The HTML of a page: every text from the data is escaped, and nothing is loaded from elsewhere."""
    environment = Environment(
        loader=PackageLoader("ssl_adapt.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    figures = [figure for section in sections for figure in section.figures]
    names = [figure.name for figure in figures]
    assert len(names) == len(set(names)), names
    layout = environment.get_template("layout.html")
    module: Any = environment.get_template("figure.html").module

    def content(section: PageSection) -> Markup:
        by_name = {figure.name: figure for figure in section.figures}
        template = environment.get_template(f"{section.name}.html")
        values: Mapping[str, Any] = {"section": section, "figure": lambda name: module.figure(by_name[name])}
        return Markup(template.render({**section.values, **values}))

    return layout.render(
        title=title, sections=[(section, content(section)) for section in sections], version=version("ssl-adapt"),
        style=_own_file(environment, "page.css"), script=_own_file(environment, "page.js"),
        charts=as_script({figure.name: figure.spec for figure in figures}), config=as_script(chart_config()),
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)),
    )  # fmt: skip


def _own_file(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])
