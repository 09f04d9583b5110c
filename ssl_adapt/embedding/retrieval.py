"""The images of an embedded set whose features are nearest to those of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_adapt.data import ImageSet
from ssl_adapt.data.image_dataset import FileImages
from ssl_adapt.data.image_source import FolderFiles, ImageFiles, open_image_files
from ssl_adapt.embedding.feature_parts import read_features, read_names
from ssl_adapt.embedding.manifest import Manifest, load_manifest, network_checksum, normalisation
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import extract_features
from ssl_adapt.evaluation.frozen_network import HUB, find_network, load_network
from ssl_adapt.evaluation.neighbour_search import Neighbours, create_index, nearest_candidates, search_index
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.unit_rows import unit_rows

_MEMORY_LIMIT_BYTES = 4 * 2**30  # of a compressed tar of queries


class Found(NamedTuple):
    """An image near a query: its id, its class, "" where there is none, and the cosine of the angle between them."""

    id: str
    class_name: str
    cosine: float


class Result(NamedTuple):
    """The name of a query, and what is near it, nearest first."""

    query: str
    found: list[Found]


def retrieve(
    folder: Path,
    query: Path,
    *,
    k: int,
    model: str | None,
    batch_size: int,
    device: torch.device,
    workers: int,
    begin: Begin = show_nothing,
) -> list[Result]:
    """The k images of an embedded set that are nearest to each of some images, by cosine.

    The files of the folder are searched one by one, so one of them is in memory at a time, beside the queries.

    Args:
        folder: the features that `embed` has written.
        query: an image, or a folder or tar of images.
        k: how many, if the set has as many.
        model: where the network is now, if not where it was.
        batch_size: queries that the network sees at a time.
        device: where the network runs.
        workers: processes that decode.
        begin: called at each stage.

    Raises:
        ValueError: the folder is no such one or is incomplete, the network has changed, or the images can't be read.
    """
    manifest = load_manifest(folder)
    missing = [part.name for part in manifest.parts if not (folder / part.name).exists()]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(manifest.parts)} files, such as {missing[0]}: "
            "type the same ssl-adapt embed again, which adds them"
        )
    network = _load_same_network(folder, manifest, model).to(device)
    mean, std = normalisation(network)
    names, images = _load_queries(query, manifest.image_px)
    try:
        features = extract_features(
            network, images, mean=mean, std=std, batch_size=batch_size, device=device, workers=workers,
            advance=begin("features of the queries", len(images)),
        )  # fmt: skip
    except ValueError as error:  # of an image that can't be read, whose message is for training
        raise UserError(str(error).removesuffix(", or train with data.on_bad_image=replace")) from error
    nearest = _search(folder, manifest, features, k, begin)
    rows = _read_rows(folder, manifest, nearest.classes)
    return [
        Result(name, [Found(*rows[row], cosine) for row, cosine in zip(own_rows, cosines, strict=True)])
        for name, own_rows, cosines in zip(names, nearest.classes.tolist(), nearest.cosines.tolist(), strict=True)
    ]


def _load_same_network(folder: Path, manifest: Manifest, model: str | None) -> nn.Module:
    """The network that the features are of."""
    if model is None and manifest.network.startswith(HUB):  # which may hold code, and the folder may be anybody's
        raise UserError(f"the features in {folder} are of a network of the hub: add model={manifest.network}")
    name = manifest.network if model is None else find_network(model)
    try:
        network = load_network(name, pretrained=manifest.pretrained)
    except ValueError as error:
        hint = "" if model else "; if the model lies elsewhere now, add model=FOLDER"
        raise UserError(f"the network of the features in {folder} can't be loaded: {error}{hint}") from error
    if network_checksum(network) != manifest.weights:
        raise UserError(
            f"{name} has other weights than when {folder} was made: embed the images again, or add model=MODEL"
        )
    return network


def _load_queries(query: Path, image_px: int) -> tuple[Sequence[str], ImageSet]:
    """The names of the images and the images."""
    try:
        if query.is_file() and query.name.lower().endswith(IMG_EXTENSIONS):
            files: ImageFiles = FolderFiles(query.parent, (query.name,))
        else:
            files = open_image_files(query, memory_limit_bytes=_MEMORY_LIMIT_BYTES)
    except ValueError as error:
        raise UserError(str(error).replace("data.root", "query")) from error
    if not files.names:
        raise UserError(f"query={query} holds no images: type an image, or a folder or tar of images")
    names = files.names
    return names, ImageSet("queries", FileImages(files, names, (None,) * len(names), image_px, "error", {}))


def _search(folder: Path, manifest: Manifest, queries: Tensor, k: int, begin: Begin) -> Neighbours:
    """The nearest rows, counted over all files; `classes` are the numbers of the rows."""
    if not queries.isfinite().all():
        raise UserError("the features of the queries are not finite: embed with a model whose training did not diverge")
    queries = unit_rows(queries)
    advance = begin("search", len(manifest.parts))
    nearest = Neighbours(queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64))
    start = 0
    for part in manifest.parts:
        bank = read_features(folder / part.name)
        if bank.shape[1:] != queries.shape[1:] or not bank.isfinite().all():
            raise UserError(f"{folder / part.name} has features of another dimension, or not finite: embed again")
        found = search_index(create_index(unit_rows(bank), k, None), start + torch.arange(len(bank)), queries, k)
        both = Neighbours(*(torch.cat(pair, dim=1) for pair in zip(nearest, found, strict=True)))
        nearest = nearest_candidates(both, min(k, both.cosines.shape[1]))
        start += len(bank)
        advance(1)
    return nearest


def _read_rows(folder: Path, manifest: Manifest, wanted: Tensor) -> dict[int, tuple[str, str]]:
    """The id and class of each of the rows, by their number over all files."""
    rows, start = {}, 0
    left = sorted(set(wanted.flatten().tolist()))
    for part in manifest.parts:
        ids, classes = read_names(folder / part.name)
        rows.update({row: (ids[row - start], classes[row - start]) for row in left if start <= row < start + len(ids)})
        start += len(ids)
    return rows
