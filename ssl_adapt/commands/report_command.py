"""The page of a run, and figures: `ssl-adapt report run=FOLDER`, `ssl-adapt report before=A after=B drawing=FILE`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from ssl_adapt.errors import UserError
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Text
from ssl_adapt.report.drawing_path import DrawingPath, PlotPath

USAGE = """\
usage: ssl-adapt report run=FOLDER [page=FILE] [figures=FOLDER]
       ssl-adapt report before=NETWORK after=NETWORK drawing=FILE
       ssl-adapt report theta=RUN plot=FILE

Writes the page of a run, one HTML file that needs no network, and its figures as SVG and PDF. Or draws the cells of two
networks with the same edges, differences in red, or theta over the steps of a run. A network is
a timm model's name, the folder of a run or an export, or an architecture.json:
  run=runs/adapted        run=runs/adapted figures=figures/
  before=runs/original after=runs/adapted drawing=figures/        theta=runs/adapted plot=theta.svg
"""


class ReportOptions(Section):
    """What is drawn, and where."""

    run: Text | None = Field(
        default=None,
        description="folder of a run; several, side by side, between commas or by a pattern such as runs/a*",
    )
    page: Text | None = Field(
        default=None, description="where its page goes; null: report.html in its folder, comparison.html beside several"
    )
    figures: Text | None = Field(
        default=None, description="folder for the figures of its page, as SVG and PDF, and its cells as DOT and Mermaid"
    )
    before: Text | None = Field(default=None, description="the network before")
    after: Text | None = Field(default=None, description="the network after")
    drawing: DrawingPath | None = Field(
        default=None, description="of both: this file, or cells.svg and cells.png in this folder"
    )
    theta: Text | None = Field(default=None, description="folder of a run")
    plot: PlotPath | None = Field(
        default=None, description="of its theta over time: this file, or theta.svg and theta.png in this folder"
    )

    @model_validator(mode="after")
    def _what_belongs_together(self) -> ReportOptions:
        for key in ("page", "figures"):
            if getattr(self, key) is not None and self.run is None:
                raise UserError(f"{key} goes with a run: add run=FOLDER")
        for together in (("before", "after", "drawing"), ("theta", "plot")):
            missing = [key for key in together if getattr(self, key) is None]
            if missing and len(missing) < len(together):
                meaning = type(self).model_fields[missing[0]].description
                raise UserError(f"{missing[0]} is missing: add {missing[0]}=VALUE, {meaning}")
        return self


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, ReportOptions)


def run(arguments: Sequence[str]) -> None:
    """Draw the figures, and print their paths."""
    options = read_options(ReportOptions, arguments)
    if options.run is not None:
        from ssl_adapt.page.write_page import write_report

        for line in write_report(options.run, options.page, options.figures):
            print(line)
    given = options.model_dump(exclude_none=True, exclude={"run", "page", "figures"})
    if given:
        from ssl_adapt.report.figures import draw_report

        for line in draw_report(given):
            print(line)
