"""Calls of `embed` on a small set of images, in parts of a few rows, for the tests of embedding."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

from image_folders import write_images

from ssl_adapt.embedding.embed import Embedded, embed
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.evaluation.subject import create_subject

BATCH, ROWS = 2, 4  # images of a batch, and of a part
NAMES = [f"{split}/{label}/{index}.png" for split, count in (("train", 7), ("test", 3)) for label in "ab"
         for index in range(count)]  # fmt: skip
PARTS = [
    f"{split}-{i:05d}-of-{count:05d}.parquet" for split, count in (("test", 2), ("train", 4)) for i in range(count)
]


def write_set(folder: Path) -> Path:
    """14 images for training and 6 for testing, of two classes: four parts and two."""
    write_images(folder, *NAMES)
    return folder


def embed_small(model: Path, root: Path, out: Path, begin: Begin = show_nothing, **given: Any) -> Embedded:
    own = {key: given.pop(key) for key in ("file_format", "on_bad_image") if key in given}
    values = {"model": str(model), "data": "folder", "root": str(root), "device": "cpu", "workers": 0} | given
    subject = create_subject({"batch_size": BATCH} | values, None)
    with patch("ssl_adapt.embedding.feature_parts.MOST_ROWS", ROWS):
        return embed(subject, out, **{"file_format": "parquet", "on_bad_image": "error"} | own, begin=begin)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of the files that are read by others."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


def main(model: Path, root: Path, out: Path) -> None:
    """One of several processes; says how many images and files they have written."""
    done = embed_small(model, root, out)
    print(done.images, done.parts, done.written_images, done.written_parts)
