"""Features of all images of a set as files: `ssl-adapt embed model=MODEL out=FOLDER key=value ...`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ssl_adapt.commands.subject_options import SubjectOptions
from ssl_adapt.json_text import shown
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.values import Text

USAGE = """\
usage: ssl-adapt embed model=MODEL out=FOLDER [KEY=VALUE ...]

Writes the features of all images, by a frozen network, to parquet files; the same command again adds what is missing:
  model=runs/quickstart out=features    model=resnet18 data=folder root=/my/images image_px=224 out=features
"""
MOST_SHOWN = 5  # of the images that were left out


class EmbedOptions(SubjectOptions):
    """Whose features are written, of which images, and where to."""

    out: Text = Field(description="the folder for the files: a new one, or one that the same command has begun")
    format: Literal["parquet", "npz"] = Field(default="parquet", description="of the files; parquet needs pyarrow")
    on_bad_image: Literal["error", "skip"] = Field(
        default="error", description="whether an image that can't be read ends the command, or is left out"
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
