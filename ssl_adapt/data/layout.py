"""The training and test images of a folder or tar, and the class of each, from the names of its folders."""

import posixpath
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ssl_adapt.data.image_source import ImageFiles
from ssl_adapt.errors import UserError

Classes = dict[str, str | None]  # name of a file -> its class; None where it is in no class folder

_HELD_OUT = ("test", "val")
_ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet's, in val/: a line "file <tab> class <tab> box" an image
_MAX_ANNOTATION_BYTES = 2**30


class Layout(NamedTuple):
    """The files of each split with their classes; `test` is None where nothing is held out."""

    train: Classes
    test: Classes | None
    order: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes by index: `order`, or else those of `train`, sorted; empty where no image has a class."""
        return self.order or tuple(sorted({label for label in self.train.values() if label is not None}))


def find_layout(files: ImageFiles, *, held_out: tuple[str, ...] = _HELD_OUT) -> Layout:
    """The splits and classes of `files`.

    Splits are the folder `train/` and the first of `held_out` that exists; folders beside them are not read.
    Without them, all images are for training. The first folder inside is the class; deeper ones belong to it.
    Images without such a folder have no class. Folders that all images share are ignored, except split
    folders: so a single class folder counts as a flat folder of unlabelled images. Tiny ImageNet's own list
    `val_annotations.txt` gives the classes of its `val/`.

    Raises:
        ValueError: no images, or one for training; `test/` or `val/` without `train/`; loose images beside
            class folders; a class that only the held-out split has, or classes in one split alone.
    """
    root = files.root
    if not files.names:
        others = files.all_names()
        found = f"{len(others)} other files, such as {others[0]!r}" if others else "nothing"
        raise UserError(
            f"data.root={root} holds no images (found {found}): expected class folders, the same under "
            "train/ and test/ or val/, or loose images, or a tar of any of these"
        )
    top = _shared_folder(files.names)
    groups: dict[str, list[str]] = {}
    for name in files.names:
        folder, slash, _ = name.removeprefix(top).partition("/")
        groups.setdefault(folder if slash else "", []).append(name)
    present = [split for split in held_out if split in groups]
    if present and groups.keys() <= set(_HELD_OUT):
        raise UserError(f"data.root={root} holds {present[0]}/ but no train/: put the training images there")

    # Beside folders that are no splits, and with nothing held out, train/ is a class, such as a vehicle.
    if "train" not in groups or not (present or groups.keys() == {"train"}):
        layout = Layout(_classes(root, top, files.names), None)
    else:
        train = _classes(root, f"{top}train/", groups["train"])
        layout = Layout(train, _held_out_classes(files, f"{top}{present[0]}/", groups[present[0]]) if present else None)
    _check(root, layout)
    return layout


def _shared_folder(names: Iterable[str]) -> str:
    """The folders above all images, down to the first split folder: "", or such as "cifar10/"."""
    shared = posixpath.commonpath([posixpath.dirname(name) for name in names])
    top = takewhile(lambda part: part not in ("train", *_HELD_OUT), shared.split("/"))
    return posixpath.join(*top, "") if shared else ""


def _classes(root: Path, folder: str, names: Iterable[str]) -> Classes:
    """The class of each image in `folder` ("" or ending in "/")."""
    classes: Classes = {}
    for name in names:
        label, slash, _ = name.removeprefix(folder).partition("/")
        classes[name] = label if slash else None
    loose = [name for name, label in classes.items() if label is None]
    if 0 < len(loose) < len(classes):
        raise UserError(
            f"data.root={root} mixes class folders with {len(loose)} loose images ({loose[0]!r}): "
            "move these into class folders, or all images into one folder"
        )
    return classes


def _held_out_classes(files: ImageFiles, folder: str, names: list[str]) -> Classes:
    annotations = files.read(folder + _ANNOTATIONS, max_bytes=_MAX_ANNOTATION_BYTES)
    if annotations is None:
        return _classes(files.root, folder, names)
    class_of = dict(line.split("\t")[:2] for line in annotations.decode(errors="replace").splitlines() if "\t" in line)
    unknown = [name for name in names if posixpath.basename(name) not in class_of]
    if unknown:
        raise UserError(f"{folder}{_ANNOTATIONS} in data.root={files.root} has no line for {unknown[0]!r}: add it")
    return {name: class_of[posixpath.basename(name)] for name in names}


def _check(root: Path, layout: Layout) -> None:
    train, test = layout.train, layout.test
    if test is None:
        return
    train_labels, test_labels = set(train.values()), set(test.values())
    if (None in train_labels) != (None in test_labels):
        bare = "train" if None in train_labels else "held-out"
        raise UserError(
            f"the {bare} images of data.root={root} lie in no class folders, the other ones do: "
            "give both splits the same class folders, or neither"
        )
    extra = sorted(label for label in test_labels - train_labels if label is not None)
    if extra:
        raise UserError(
            f"data.root={root} has held-out images of class {extra[0]!r} but none in train/ "
            f"({len(extra)} such classes): give train/ the same class folders"
        )


def listed_layout(root: Path, train: Classes, test: Classes | None, order: tuple[str, ...] = ()) -> Layout:
    """The layout of images whose splits and classes are listed; without an `order` class 2 comes before class 10.

    Raises:
        ValueError: no image for training; labels in one split alone; a class that no training image has.
    """
    if not train:
        raise UserError(f"data.root={root} has no image for training: list one or more in the split train")
    train_labels, test_labels = set(train.values()), set((test or {}).values())
    if test and (None in train_labels) != (None in test_labels):
        bare, other = ("training", "held-out") if None in train_labels else ("held-out", "training")
        raise UserError(
            f"the {bare} images of data.root={root} have no labels, the {other} ones do: give both labels, or neither"
        )
    labels = sorted(label for label in train_labels if label is not None)
    extra = sorted(label for label in test_labels - train_labels if label is not None)
    if extra:
        raise UserError(
            f"data.root={root} has held-out images of class {extra[0]!r} and none for training "
            f"({len(extra)} such classes): add some, or leave these out"
        )
    if not order and all(label.isdecimal() for label in labels):
        labels.sort(key=int)
    return Layout(train, test or None, order or tuple(labels))
