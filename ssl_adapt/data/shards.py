"""WebDataset shards as one set with random access: an index of the images in all tars, and their labels."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_adapt.data.collection import check_left_out
from ssl_adapt.data.columns import Columns
from ssl_adapt.data.image_dataset import OnBadImage
from ssl_adapt.data.layout import Classes, Layout, listed_layout
from ssl_adapt.data.shard_pattern import Shard, find_shards
from ssl_adapt.data.tar_files import RefusedTarError, TarIndex, read_tar_index
from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_json, shown

# As WebDataset splits names: the key of the sample, then the ending, from the first dot on.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_IMAGE_ENDINGS = tuple(ending.removeprefix(".") for ending in IMG_EXTENSIONS)
_MAX_LABEL_BYTES = 2**20

Sample = dict[str, tuple[int, int]]  # the offset and size of each ending


@dataclass(frozen=True)
class ShardFiles:
    """The images in shards, by names such as `000003.tar/0031415.jpg`, in the order of their names.

    Places are arrays, not objects: the decoding processes share their memory.
    """

    root: Path
    names: tuple[str, ...]
    left_out: dict[str, str]
    shards: tuple[Path, ...] = field(repr=False)
    shard_of: NDArray[np.int64] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)

    def read(self, name: str, *, max_bytes: int) -> bytes | None:
        index = bisect_left(self.names, name)
        if index == len(self.names) or self.names[index] != name:
            return None
        with self.shards[self.shard_of[index]].open("rb") as file:
            file.seek(int(self.offsets[index]))
            content: bytes = file.read(min(int(self.sizes[index]), max_bytes + 1))
        return content

    def all_names(self) -> list[str]:
        return list(self.names)


class _Image(NamedTuple):
    name: str
    label: str | None
    place: tuple[int, int]


class _BadSampleError(Exception):
    """A sample can't be used; the message says why."""


def open_shards(root: Path, columns: Columns, on_bad_image: OnBadImage) -> tuple[ShardFiles, Layout]:
    """The images of all shards that `root` names, see `find_shards`, and the split and class of each.

    A sample is the members of a shard whose names are the same up to the first dot. Its image is the member with an
    ending such as jpg or png, or `columns.image`. Its label is the text of its member `cls`, or what its `json` has
    under `label`; `columns.label` names another member or another key. The headers of all members are read once.

    Shards that are missing or broken are errors; with `on_bad_image="replace"` they are left out from where they are
    broken, as are samples without a label among others that have one.

    Raises:
        ValueError: naming the shard, or the sample: it can't be read, is compressed, has a name twice, has several
            images; there are no images at all.
    """
    shards = find_shards(root)
    left_out: dict[str, str] = {}
    names, labels, held_out = [], [], bytearray()
    shard_of, offsets, sizes = array("q"), array("q"), array("q")
    endings: dict[str, None] = {}
    texts: dict[str, str] = {}  # each class's name is kept once
    for number, shard in enumerate(shards):
        for image in _read_shard(shard, columns, on_bad_image, left_out, endings):
            names.append(image.name)
            labels.append(None if image.label is None else texts.setdefault(image.label, image.label))
            held_out.append(shard.is_held_out)
            shard_of.append(number)
            offsets.append(image.place[0])
            sizes.append(image.place[1])
    _check(root, names, labels, columns, left_out, endings)
    train: Classes = {}
    test: Classes = {}
    order = sorted(range(len(names)), key=names.__getitem__)
    for index in order:
        if labels[index] is None and texts:
            left_out[names[index]] = "it has no label, and others have"
        else:
            (test if held_out[index] else train)[names[index]] = labels[index]
    files = ShardFiles(
        root, tuple(names[index] for index in order), left_out, tuple(shard.path for shard in shards),
        *(np.asarray(values, dtype=np.int64)[order] for values in (shard_of, offsets, sizes)),
    )  # fmt: skip
    check_left_out(files, on_bad_image)  # first, as what is left may be too little
    return files, listed_layout(root, train, test)


def _check(
    root: Path,
    names: list[str],
    labels: list[str | None],
    columns: Columns,
    left_out: dict[str, str],
    endings: dict[str, None],
) -> None:
    found = ", ".join(list(endings)[:6]) or "nothing"
    if not names:
        wanted = f"members that end in .{columns.image}" if columns.image else "images"
        why = f"; {(bad := next(iter(left_out)))}: {left_out[bad]}" if left_out else ""
        raise UserError(f"data.root={root} has no {wanted} in its samples (their endings: {found}{why})")
    if columns.label and not any(labels):
        raise UserError(
            f"data.label_column={columns.label}: no sample of data.root={root} has a member .{columns.label}, nor "
            f"that key in its .json (endings: {found})"
        )


def _read_shard(
    shard: Shard, columns: Columns, on_bad_image: OnBadImage, left_out: dict[str, str], endings: dict[str, None]
) -> Iterator[_Image]:
    """The images of a shard; what can't be read is an error or goes to `left_out`, endings go to `endings`."""
    try:
        index = read_tar_index(shard.path, memory_limit_bytes=0)
    except RefusedTarError as refusal:
        raise UserError(f"the shard {shard.path} {refusal}") from None
    if index.damage:
        reason = index.damage if shard.path.exists() else "it is not there"
        if on_bad_image == "error":
            raise UserError(
                f"the shard {shard.path} cannot be read to its end ({reason}): replace or remove it, "
                "or train with data.on_bad_image=replace"
            )
        left_out[shard.name] = reason
    if not index.members:
        return
    left_out |= {f"{shard.name}/{name}": why for name, why in index.left_out.items() if name.endswith(IMG_EXTENSIONS)}
    with shard.path.open("rb") as file:
        for key, sample in _samples(index, shard.path.stat().st_size).items():
            endings.update(dict.fromkeys(sample))
            ending = _image_ending(sample, shard, key, columns.image)
            if ending is None:
                continue
            name = f"{shard.name}/{key}.{ending}"
            try:
                yield _Image(name, _label(file, sample, columns.label), sample[ending])
            except _BadSampleError as error:
                left_out[name] = str(error)


def _samples(index: TarIndex, shard_bytes: int) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for name, place in index.members.items():
        found = _MEMBER.fullmatch(name)
        # The last member of a shard that breaks off is not all there.
        if found and not isinstance(place, bytes) and sum(place) <= shard_bytes:
            samples.setdefault(found[1], {})[found[2]] = place
    return samples


def _image_ending(sample: Sample, shard: Shard, key: str, wanted: str | None) -> str | None:
    if wanted is not None:
        return wanted if wanted in sample else None
    endings = [ending for ending in sample if ending.lower() in _IMAGE_ENDINGS]
    if len(endings) > 1:
        raise UserError(
            f"the sample {key!r} of the shard {shard.path} has several images ({', '.join(endings)}): "
            f"name one of them by data.image_column={endings[0]}"
        )
    return endings[0] if endings else None


def _label(file: IO[bytes], sample: Sample, wanted: str | None) -> str | None:
    member, key = wanted or "cls", wanted or "label"
    if member in sample:
        return _text(file, sample, member).strip() or None
    if "json" not in sample:
        return None
    try:
        values = read_json(_text(file, sample, "json"), "its .json")
    except UserError as error:
        raise _BadSampleError(str(error)) from None
    value = values.get(key) if isinstance(values, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _BadSampleError(f"its label in .json is {shown(value)}, neither a whole number nor text")
    return str(value).strip() or None


def _text(file: IO[bytes], sample: Sample, member: str) -> str:
    offset, size = sample[member]
    if size > _MAX_LABEL_BYTES:
        raise _BadSampleError(f"its .{member} is larger than {_MAX_LABEL_BYTES:,} bytes")
    file.seek(offset)
    try:
        return file.read(size).decode()
    except UnicodeDecodeError:
        raise _BadSampleError(f"its .{member} is not text in UTF-8") from None
