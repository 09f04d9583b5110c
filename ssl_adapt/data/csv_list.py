"""Images that a CSV lists, with their labels and splits."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from ssl_adapt.data.columns import Columns
from ssl_adapt.data.image_dataset import OnBadImage
from ssl_adapt.data.image_source import FolderFiles
from ssl_adapt.data.layout import Classes, Layout, listed_layout
from ssl_adapt.errors import UserError

_SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
_HEADER = "path,label or path,label,split"

Row = tuple[int, str, str | None, str]  # line, path, label, split


def open_csv(root: Path, columns: Columns, on_bad_image: OnBadImage) -> tuple[FolderFiles, Layout]:
    """The images of a CSV in its order, paths relative to its folder, and the split and class of each.

    The first line names the columns: `path`, or `columns.image`; perhaps `label`, or `columns.label`; perhaps
    `split`, with train, and test or val; without it all images are for training. Other columns are not read.

    Raises:
        ValueError: naming the file and the line: a column or a label is missing, a split is unknown, a path is there
            twice or, if bad images are errors, leads to no file.
    """
    rows = list(_read(root, columns))
    lines: dict[str, int] = {}
    for line, path, _, _ in rows:
        if path in lines:
            raise UserError(
                f"line {line} of {root} has the path {path!r} of line {lines[path]} again: keep one of them"
            )
        lines[path] = line
        if on_bad_image == "error" and not os.path.isfile(root.parent / path):
            raise UserError(
                f"line {line} of {root} names {path!r}, and there is no such file in {root.parent}: change the path "
                "or remove the line, or train with data.on_bad_image=replace"
            )
    unlabelled = [line for line, _, label, _ in rows if label is None]
    if 0 < len(unlabelled) < len(rows):
        raise UserError(f"line {unlabelled[0]} of {root} has no label, and others have: give all images one, or none")
    splits: dict[str, Classes] = {"train": {}, "test": {}, "val": {}}
    for _, path, label, split in rows:
        splits[split][path] = label
    layout = listed_layout(root, splits["train"], splits["test"] or splits["val"])
    return FolderFiles(root.parent, tuple(path for _, path, _, _ in rows)), layout


def _read(root: Path, columns: Columns) -> Iterator[Row]:
    if not root.is_file():
        found = "is no file" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {found}: type the path of a CSV whose first line is {_HEADER}")
    with root.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            header = next(reader, [])
            places = _places(root, header, columns)
            for fields in reader:
                if fields:
                    yield _row(root, reader.line_num, fields, header, places)
        except csv.Error as error:
            raise UserError(f"line {reader.line_num} of {root} is not CSV: {error}") from None
        except UnicodeDecodeError:
            raise UserError(
                f"line {reader.line_num + 1} of {root}, or one soon after it, is not text in UTF-8"
            ) from None


def _places(root: Path, header: list[str], columns: Columns) -> dict[str, int]:
    """Where the columns of path, label and split stand; the last two may be absent."""
    shown = ",".join(header)
    names = {"path": columns.image or "path", "label": columns.label or "label", "split": "split"}
    for what, key, given in (("path", "image", True), ("label", "label", columns.label)):
        if given and names[what] not in header:
            raise UserError(
                f"line 1 of {root} is {shown!r} and has no column {names[what]!r}: write {_HEADER}, or name the column "
                f"of the {what}s by data.{key}_column"
            )
    return {what: header.index(name) for what, name in names.items() if name in header}


def _row(root: Path, line: int, fields: list[str], header: list[str], places: dict[str, int]) -> Row:
    if len(fields) != len(header):
        raise UserError(
            f"line {line} of {root} has {len(fields)} fields, and line 1 names {len(header)} columns: "
            "put quotes around a field that holds a comma"
        )
    path, label, split = (
        fields[places[what]].strip() if what in places else None for what in ("path", "label", "split")
    )
    if not path:
        raise UserError(f"line {line} of {root} has no path: write one, or remove the line")
    if split is not None and split not in _SPLITS:
        raise UserError(f"line {line} of {root} has the split {split!r}: write train, test or val")
    return line, path, label or None, _SPLITS[split or "train"]
