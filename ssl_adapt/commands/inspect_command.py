"""A network's edges as a table, JSON and a drawing: `ssl-adapt inspect model=NAME_OR_FOLDER key=value ...`."""

import sys
from collections.abc import Sequence

from pydantic import Field

from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, ModelArguments, NewFile, Text
from ssl_adapt.report.drawing_path import DrawingPath

USAGE = """\
usage: ssl-adapt inspect model=NAME_OR_FOLDER [KEY=VALUE ...]

Shows the edges of a network, given as a timm model's name, the folder of a run or an export, or an architecture.json:
  model=resnet20    model=darts args='{cells: 20}' drawing=cells.svg    model=runs/quickstart json=edges.json
"""


class InspectOptions(Section):
    """Which network is shown, and where."""

    model: Text = Field(description="name of a timm model, folder of a run or an export, or architecture.json")
    args: ModelArguments | None = Field(
        default=None, description="further arguments of timm.create_model, for a name that timm knows"
    )
    edges: Text | None = Field(
        default=None,
        description="glob over the modules of a timm model without edges of its own; null: the usual ones",
    )
    image_px: Count | None = Field(default=None, description="side of the images in pixels; null: the network's own")
    drawing: DrawingPath | None = Field(
        default=None, description="draw the cells: into this file, or cells.svg and cells.png in this folder"
    )
    json_path: NewFile | None = Field(default=None, alias="json", description="write everything to this file")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, InspectOptions)


def run(arguments: Sequence[str]) -> None:
    """Print the table, and write the drawing and the JSON if they are asked for."""
    options = read_options(InspectOptions, arguments)
    from rich.console import Console

    from ssl_adapt.report.edge_table import describe_network, print_network
    from ssl_adapt.report.inspection import draw_network, load_for_inspection

    network = describe_network(*load_for_inspection(options.model_dump(exclude_none=True)))
    if options.drawing is not None:
        draw_network(network, options.drawing)
    print_network(network, Console(width=None if sys.stdout.isatty() else 150))
    if options.json_path is not None:
        options.json_path.write_text(network.to_json() + "\n", encoding="utf-8")
