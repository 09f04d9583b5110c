"""The nearest neighbours of images in an embedded set: `ssl-adapt retrieve features=FOLDER query=IMAGE ...`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ssl_adapt.json_text import shown
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options
from ssl_adapt.recipe.section import Section
from ssl_adapt.recipe.values import Count, CountOrZero, NewFile, Text

USAGE = """\
usage: ssl-adapt retrieve features=FOLDER query=IMAGE [KEY=VALUE ...]

Finds the images of a set, whose features ssl-adapt embed has written, that are most similar to others:
  features=features query=cat.jpg    features=features query=/my/images k=5 csv=near.csv
"""
MOST_SHOWN = 20  # queries; the file has all


class RetrieveOptions(Section):
    """What is looked for, and in what."""

    features: Text = Field(description="the folder that ssl-adapt embed has written")
    query: Text = Field(description="an image, or a folder or tar of images")
    k: Count = Field(default=10, description="number of neighbours of each query")
    csv: NewFile | None = Field(default=None, description="also write all neighbours to this file")
    model: Text | None = Field(
        default=None, description="where the network of the features is now; null: where it was, as the folder says"
    )
    batch_size: Count = Field(default=500, description="queries that the network sees at a time")
    device: Text | None = Field(
        default=None, description="where the network runs, such as cuda:1 or cpu; null: on a GPU where there is one"
    )
    workers: CountOrZero = Field(default=0, description="processes that decode the queries")


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, RetrieveOptions)


def run(arguments: Sequence[str]) -> None:
    """Find the neighbours, print them, and write them to a file if asked."""
    options = read_options(RetrieveOptions, arguments)
    from ssl_adapt.evaluation.progress_bar import show_progress

    with show_progress() as begin:
        begin("importing torch", None)
        import torch

        from ssl_adapt.embedding.retrieval import retrieve
        from ssl_adapt.evaluation.subject import create_device

        results = retrieve(
            Path(options.features).expanduser(),
            Path(options.query).expanduser(),
            k=options.k,
            model=options.model,
            batch_size=options.batch_size,
            device=create_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu")),
            workers=options.workers,
            begin=begin,
        )
    if options.csv is not None:
        _write_csv(options.csv, results)
    for query, found in results[:MOST_SHOWN]:
        print(_on_one_line(query))
        for image in found:
            print(f"  {image.cosine:7.4f}  {_on_one_line(image.id)}  {_on_one_line(image.class_name)}".rstrip())
    if len(results) > MOST_SHOWN:
        where = f"{options.csv} has all" if options.csv else "csv=FILE writes all"
        print(f"{len(results) - MOST_SHOWN:,} more queries; {where}")


def _write_csv(path: Path, results: Sequence[Any]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file)
        table.writerow(("query", "rank", "id", "class_name", "cosine"))
        for query, found in results:
            for rank, image in enumerate(found, start=1):
                table.writerow((query, rank, image.id, image.class_name, f"{image.cosine:.6f}"))


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else shown(name)
