"""Lists and shards that are wrong, each a row of docs/bad_input.md: see bad_inputs.py."""

import os
from collections.abc import Callable
from pathlib import Path

from image_folders import png, write_images, write_tar
from shard_files import sample, write_shards

Make = Callable[[], object]


def write_list(*lines: str, header: str = "path,label,split") -> None:
    write_images(Path(), "a.png", "b.png")
    Path("a.csv").write_text("\n".join([header, *lines, ""]))


LISTS: list[tuple[str, Make]] = [
    ("a CSV that is not there", lambda: None),
    ("a CSV without the column path", lambda: write_list("a.png,x", header="file,label")),
    ("a path that leads to no file", lambda: write_list("a.png,x,train", "c.png,x,train")),
    ("a path twice", lambda: write_list("a.png,x,train", "a.png,y,train")),
    ("a split that is none", lambda: write_list("a.png,x,train", "b.png,x,dev")),
    ("an image without a label", lambda: write_list("a.png,x,train", "b.png,,train")),
    ("a line with too few fields", lambda: write_list("a.png,x,train", "b.png,x")),
]


def cut(path: Path, length: int) -> None:
    write_shards(path.parent, {path.name: 4})
    os.truncate(path, length)


TWO_IMAGES = (("0.jpg", png(0)), ("0.png", png(1)))
SHARDS: list[tuple[str, Make]] = [
    ("a pattern that names no shards", lambda: None),
    ("a shard that breaks off", lambda: cut(Path("shards/0.tar"), 9 * 1024 + 600)),
    ("a shard with a name twice", lambda: write_in_shard(*sample(0, 1), *sample(0, 1))),
    ("a sample with two images", lambda: write_in_shard(*TWO_IMAGES)),
    ("a sample without a label among others", lambda: write_in_shard(*sample(0, 1), *sample(1, 1), *sample(2, None))),
    ("shards without images", lambda: write_in_shard(("0.txt", b"x"))),
]


def write_in_shard(*members: tuple[str, bytes]) -> None:
    Path("shards").mkdir()
    write_tar(Path("shards/0.tar"), *members)


# of `pretrain recipe=debug`
KEYS = ["data.name=csv", "data.name=webdataset", "data.name=hf", "data.label_column=species"]
