"""Features of all images of a set as files: `ssl-adapt embed model=MODEL out=FOLDER key=value ...`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ssl_adapt.data_names import DataName
from ssl_adapt.json_text import shown
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, CountOrZero, Text

USAGE = """\
usage: ssl-adapt embed model=MODEL out=FOLDER [KEY=VALUE ...]

Writes the features of all images, by a frozen network, to parquet files; the same command again adds what is missing:
  model=runs/quickstart out=features    model=resnet18 data=folder root=/my/images image_px=224 out=features
"""
MOST_SHOWN = 5  # of the images that were left out


class EmbedOptions(Section):
    """Whose features are written, of which images, and where to."""

    model: Text = Field(description="a run folder, an export folder, local-dir:FOLDER, hf-hub:NAME or a name of timm")
    out: Text = Field(description="the folder for the files: a new one, or one that the same command has begun")
    data: DataName | None = Field(
        default=None, description="the images; null: those of the run, where model is a run folder"
    )
    root: Text | None = Field(
        default=None, description="folder or tar that holds the images; null: the run's, or the data set's usual place"
    )
    image_column: Text | None = Field(default=None, description="csv, hf, webdataset: as data.image_column of a recipe")
    label_column: Text | None = Field(default=None, description="csv, hf, webdataset: as data.label_column of a recipe")
    image_px: Count | None = Field(
        default=None, description="side of the square images that the network sees; null: its input size"
    )
    format: Literal["parquet", "npz"] = Field(default="parquet", description="of the files; parquet needs pyarrow")
    on_bad_image: Literal["error", "skip"] = Field(
        default="error", description="whether an image that can't be read ends the command, or is left out"
    )
    pretrained: bool = Field(default=True, description="false: a network of timm with random weights (seed 0)")
    batch_size: Count = Field(default=500, description="images that the network sees at a time")
    device: Text | None = Field(
        default=None, description="where the network runs, such as cuda:1 or cpu; null: on a GPU where there is one"
    )
    workers: CountOrZero | None = Field(
        default=None, description="processes that decode the images, of each process; null: the run's, or 4"
    )


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, EmbedOptions)


def run(arguments: Sequence[str]) -> None:
    """Write the features, and say how many."""
    options = read_options(EmbedOptions, arguments)
    from ssl_adapt.evaluation.progress_bar import show_progress

    with show_progress() as begin:
        begin("importing torch", None)
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        from ssl_adapt.embedding.embed import embed
        from ssl_adapt.evaluation.subject import create_subject
        from ssl_adapt.processes import process_index
        from ssl_adapt.training.run_defaults import run_defaults

        # joins the processes of torchrun or accelerate launch; alone it does not ask for the flag
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
        given = {"device": str(state.device), **options.model_dump(exclude_none=True)}
        subject = create_subject(given, run_defaults(options.model))
        done = embed(
            subject,
            Path(options.out).expanduser(),
            file_format=options.format,
            on_bad_image=options.on_bad_image,
            begin=begin,
        )
    if process_index() > 0:
        return
    for name, reason in sorted(done.left_out.items())[:MOST_SHOWN]:
        print(f"left out {shown(name)}: {reason}")
    if done.left_out:
        print(f"images that cannot be read and have no row: {len(done.left_out):,}")
    speed = f", {done.written_images / done.seconds:,.0f} images/s" if done.written_images else ""
    print(
        f"{options.out}: {done.images:,} images in {done.parts:,} files; now written {done.written_images:,} "
        f"in {done.written_parts:,}{speed}"
    )
