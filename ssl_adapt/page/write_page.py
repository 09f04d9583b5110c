"""Writes the page of a run, `report.html`, and its figures."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssl_adapt.errors import UserError
from ssl_adapt.page.cells_section import cells_section
from ssl_adapt.page.chart_style import chart_config
from ssl_adapt.page.comparison_section import Groups, comparison_sections, group_runs
from ssl_adapt.page.curves_section import curves_section
from ssl_adapt.page.features_section import features_section
from ssl_adapt.page.overview_section import overview_section
from ssl_adapt.page.page_section import PageSection, as_script
from ssl_adapt.page.verdict_section import verdict_section
from ssl_adapt.page.views_section import views_section
from ssl_adapt.report.chart_file import FONT, VEGA_LITE, write_chart
from ssl_adapt.report.compare_groups import find_group
from ssl_adapt.runs.atomic_file import write_text
from ssl_adapt.runs.run_record import RunRecord, is_run, read_run

PAGE, COMPARISON = "report.html", "comparison.html"
FILE_WIDTH_PX = 360  # of a figure's file, which is that of a column with letters of 8 pt; the page has more room
Sections = Callable[[RunRecord], PageSection | None]
SECTIONS: Sequence[Sections] = (
    overview_section, verdict_section, curves_section, cells_section, features_section, views_section,
)  # fmt: skip


def write_report(run: str, page: str | None = None, figures: str | None = None) -> list[str]:
    """Write the page of a run, or of several side by side, and its figures as files; returns a line for each.

    Args:
        run: the folder of the run; several between commas, * stands for anything, and a folder for the runs below it.
        page: the file of the page; None: `report.html` in the folder of the run, `comparison.html` beside several.
        figures: the folder for NAME.svg and NAME.pdf of every figure; None: they are not written.

    Raises:
        ValueError: if there is no run there; the message says what to type.
    """
    folder = Path(os.path.expanduser(run))
    runs = [read_run(folder)] if is_run(folder) else find_group("run", run)
    if len(runs) > 1:
        return write_comparison(group_runs(runs), page, figures)
    folder = runs[0].folder
    sections = create_sections(runs[0])
    return _write(runs[0].name, sections, folder / PAGE if page is None else Path(os.path.expanduser(page)), figures)


def write_comparison(groups: Groups, page: str | None = None, figures: str | None = None) -> list[str]:
    """Write the page of groups of runs, and its figures; returns a line for each. See `write_report`."""
    first = next(run for runs in groups.values() for run in runs)
    path = first.folder.parent / COMPARISON if page is None else Path(os.path.expanduser(page))
    return _write(", ".join(groups), comparison_sections(groups), path, figures)


def _write(title: str, sections: Sequence[PageSection], path: Path, figures: str | None) -> list[str]:
    try:
        write_text(path, render_page(title, sections))
    except OSError as error:
        raise UserError(
            f"page={path} cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from None
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
        vega=_vega_script(),
    )  # fmt: skip


@cache
def _vega_script() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, which takes a second to make."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE))


def _own_file(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])
