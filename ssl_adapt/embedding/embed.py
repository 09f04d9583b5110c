"""The features of all images of a set, written to a folder part by part, by any number of processes."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from ssl_adapt.data import ImageSet, load_image_splits
from ssl_adapt.data.image_dataset import FileImages
from ssl_adapt.embedding.feature_parts import FileFormat, Part, Rows, Split, check_format, rows_of_a_part, write_rows
from ssl_adapt.embedding.manifest import (
    MANIFEST,
    Manifest,
    check_same,
    load_manifest,
    network_checksum,
    normalisation,
    save_manifest,
)
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import iterate_features
from ssl_adapt.evaluation.frozen_network import LOCAL, input_size_px, load_network
from ssl_adapt.evaluation.progress_bar import Advance, Begin, show_nothing
from ssl_adapt.evaluation.subject import Subject
from ssl_adapt.processes import any_process, gather_objects, process_count, process_index
from ssl_adapt.runs.lock import LOCK, lock_folder

OnBadImage = Literal["error", "skip"]


class Embedded(NamedTuple):
    """What one call did.

    Attributes:
        images: all images of the set.
        parts: all files of the folder.
        written_images: those whose features were computed now, by all processes.
        written_parts: the files that were written now, by all processes.
        left_out: the images that could not be read and were met now, with the reasons.
        seconds: that the features took, without loading network and names.
    """

    images: int
    parts: int
    written_images: int
    written_parts: int
    left_out: dict[str, str]
    seconds: float


def embed(
    subject: Subject,
    folder: Path,
    *,
    file_format: FileFormat,
    on_bad_image: OnBadImage,
    begin: Begin = show_nothing,
) -> Embedded:
    """Write the features of all images, training and test, to a folder; what is there already is not computed again.

    A part of the images is in memory at a time. The files do not depend on the number of processes, nor on where a
    killed call stopped, to the byte. Images pass as in `extract_features`, in the same batches as for the kNN.

    Args:
        subject: which network and images; `train_images` is not looked at, nor is `labelled_share`.
        folder: new, empty, or begun by a call with the same network and images.
        file_format: of the files.
        on_bad_image: whether an image that can't be read ends the call, or has no row.
        begin: called at each stage.

    Raises:
        ValueError: the model, the images or the folder can't be used; the message says what to type.

    Distributed:
        Collective: each process writes its share of the parts.
    """
    check_format(file_format)
    network = load_network(subject.network, pretrained=subject.pretrained)
    image_px = input_size_px(network, subject.image_px)
    begin("looking for the images", None)
    splits = _load_splits(subject, image_px, on_bad_image)
    ids = {split: image_ids(split, image_set) for split, image_set in splits.items()}
    manifest = _describe(subject, network, image_px, file_format, splits, ids)
    with _claimed(folder, manifest):
        missing = [part for part in manifest.parts if not (folder / part.name).exists()]
        missing = gather_objects(missing)[0]  # all have looked before any writes
        own = missing[process_index() :: process_count()]
        network.to(subject.device)
        start_sec = time.perf_counter()
        advance = begin("features", sum(part.stop - part.start for part in own))
        bad_images: dict[str, str] = {}
        for split, image_set in splits.items():
            in_split = [part for part in own if part.split == split]
            for part, rows in _iterate_rows(network, image_set, ids[split], in_split, manifest, subject, advance):
                write_rows(folder / part.name, rows)
            bad_images |= image_set.bad_images
        left_out = {name: reason for found in gather_objects(bad_images) for name, reason in found.items()}
        absent = [part.name for part in manifest.parts if not (folder / part.name).exists()]
        assert not absent or process_index() > 0, f"each part was some process's: {absent}"
    written = sum(part.stop - part.start for part in missing)
    seconds = time.perf_counter() - start_sec
    return Embedded(sum(manifest.counts.values()), len(manifest.parts), written, len(missing), left_out, seconds)


def image_ids(split: Split, image_set: ImageSet) -> list[str]:
    """A name for each image: its file's, relative to the root of the set; SPLIT/INDEX where the images are no files.

    Bytes of a file's name that are no UTF-8 are written as backslash, x and two digits.

    Raises:
        ValueError: two images have the same name.
    """
    if not isinstance(image_set.pixels, FileImages):
        return [f"{split}/{index}" for index in range(len(image_set))]
    ids = [
        name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in image_set.pixels.names
    ]
    if len(set(ids)) < len(ids):
        raise UserError(f"two images have the name {Counter(ids).most_common(1)[0][0]!r}: rename one of them")
    return ids


def _load_splits(subject: Subject, image_px: int, on_bad_image: OnBadImage) -> dict[Split, ImageSet]:
    """The images of each split, to be decoded when they are needed."""
    try:
        train, test = load_image_splits(
            subject.data,
            root=subject.root,
            image_px=image_px,
            in_memory=False,
            columns=subject.columns,
            on_bad_image="error" if on_bad_image == "error" else "replace",
        )
    except ValueError as error:
        # the loader's messages name the keys of a recipe
        raise UserError(_own_keys(error)) from error
    return {"train": train, **({"test": test} if test is not None else {})}


def _own_keys(error: Exception) -> str:
    message = str(error).replace("data.name", "data")
    for key in ("root", "image_column", "label_column"):
        message = message.replace(f"data.{key}", key)
    return message.replace("train with data.on_bad_image=replace", "leave it out with on_bad_image=skip")


def _describe(
    subject: Subject,
    network: nn.Module,
    image_px: int,
    file_format: FileFormat,
    splits: dict[Split, ImageSet],
    ids: dict[Split, list[str]],
) -> Manifest:
    mean, std = normalisation(network)
    images = hashlib.sha256()
    for split, image_set in splits.items():
        labels = [None] * len(image_set) if image_set.labels is None else image_set.labels.tolist()
        images.update(json.dumps([split, image_set.classes, labels, ids[split]]).encode())
    name = subject.network
    return Manifest(
        network=f"{LOCAL}{Path(name.removeprefix(LOCAL)).absolute()}" if name.startswith(LOCAL) else name,
        pretrained=subject.pretrained,
        weights=network_checksum(network),
        data=subject.data,
        root=subject.root,
        image_px=image_px,
        mean=mean,
        std=std,
        batch_size=subject.batch_size,
        part_rows=rows_of_a_part(subject.batch_size),
        format=file_format,
        counts={split: len(image_set) for split, image_set in splits.items()},
        images=images.hexdigest(),
    )


@contextmanager
def _claimed(folder: Path, manifest: Manifest) -> Iterator[None]:
    """The folder is there, has the manifest, and is locked for the processes of this call."""
    if process_index() > 0:
        any_process(False)  # waits until the first one has made it
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file: name a folder")
    if folder.is_dir() and not (folder / MANIFEST).exists() and {entry.name for entry in folder.iterdir()} - {LOCK}:
        raise UserError(f"out={folder} is not empty, and holds no features: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, other="name another out=FOLDER"):
        if (folder / MANIFEST).exists():
            check_same(folder, load_manifest(folder), manifest)
        else:
            save_manifest(folder, manifest)
        any_process(False)
        yield


def _iterate_rows(
    network: nn.Module,
    image_set: ImageSet,
    ids: list[str],
    parts: list[Part],
    manifest: Manifest,
    subject: Subject,
    advance: Advance,
) -> Iterator[tuple[Part, Rows]]:
    """The parts, which are of one split, each with the rows of those of its images that can be read."""
    pixels, bad_images = image_set.pixels, image_set.bad_images
    order = torch.cat([torch.arange(0), *(torch.arange(part.start, part.stop) for part in parts)])
    batches = iterate_features(
        network,
        image_set,
        mean=manifest.mean,
        std=manifest.std,
        batch_size=manifest.batch_size,
        device=subject.device,
        workers=subject.workers,
        order=order,
    )
    for part in parts:
        features = []
        try:
            for batch in islice(batches, -(-(part.stop - part.start) // manifest.batch_size)):
                features.append(batch)
                advance(len(batch))
        except ValueError as error:
            raise UserError(_own_keys(error)) from error
        kept = torch.arange(part.start, part.stop)
        if bad_images and isinstance(pixels, FileImages):
            kept = torch.tensor(
                [row for row in kept.tolist() if pixels.names[row] not in bad_images], dtype=torch.int64
            )
        labels = None if image_set.labels is None else image_set.labels[kept].tolist()
        classes = None if labels is None else [image_set.classes[label] for label in labels]
        own_ids = [ids[row] for row in kept.tolist()]
        yield part, Rows(part.split, own_ids, torch.cat(features)[kept - part.start], labels, classes)
