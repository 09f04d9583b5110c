"""What is scored: a network by name and labelled images, from the keys of a command and the recipe of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from ssl_adapt.data import Columns, ImageSet, load_image_splits
from ssl_adapt.data_names import DATA_NAMES
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import extract_features
from ssl_adapt.evaluation.frozen_network import find_network
from ssl_adapt.evaluation.progress_bar import Advance
from ssl_adapt.evaluation.protocol import KnnProtocol


class RunDefaults(NamedTuple):
    """The evaluation settings in a run's recipe.

    The training images are those that the run trained on. A supervised run has no protocol.
    """

    data: str
    root: str | None
    workers: int
    train_images: int | None = None
    protocol: KnnProtocol | None = None
    labelled_share: float | None = None
    columns: Columns = Columns()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The network and the images.

    The attributes are the keys of `ssl-adapt knn` and `ssl-adapt linear`, and `network`, the name for
    `timm.create_model` of `model`. `train_images` is the run's: their number, if it trained on a part of all images.
    """

    model: str
    network: str
    pretrained: bool
    data: str
    root: str | None
    train_images: int | None
    labelled_share: float | None
    columns: Columns
    image_px: int | None
    batch_size: int
    device: torch.device
    workers: int


def create_subject(given: Mapping[str, Any], run: RunDefaults | None) -> Subject:
    """The subject from values by key, and from the run's recipe.

    With another `data` than the run's, the run's `root`, `train_images` and `labelled_share` are not used.

    Raises:
        ValueError: there is no such model, no data is named, or the device does not work.
    """
    network = find_network(given["model"])
    pretrained = given.get("pretrained", True)
    if not pretrained and ":" in network:
        raise UserError(f"pretrained=false is for names of timm, and {given['model']} is none: leave it out")
    data = given.get("data", run and run.data)
    if data is None:
        raise UserError(
            f"{given['model']} is no run folder, whose recipe names the images: add data=NAME, "
            f"one of {', '.join(DATA_NAMES)}"
        )
    own = run if run and "data" not in given else None
    columns = own.columns if own else Columns()
    return Subject(
        model=given["model"],
        network=network,
        pretrained=pretrained,
        data=data,
        root=given.get("root", own and own.root),
        train_images=own and own.train_images,
        labelled_share=given.get("labelled_share", own and own.labelled_share),
        columns=Columns(*(given.get(f"{name}_column", getattr(columns, name)) for name in Columns._fields)),
        image_px=given.get("image_px"),
        batch_size=given.get("batch_size", 500),
        device=create_device(given.get("device", "cuda" if torch.cuda.is_available() else "cpu")),
        workers=given.get("workers", run.workers if run else 4),
    )


def create_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: there is none, or it does not work here.
    """
    try:
        torch.zeros(1, device=name).cpu()  # fails for unknown names and for missing hardware
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"device={name} does not work here ({reason}); type device=cpu") from error
    return torch.device(name)


def load_labelled(subject: Subject, image_px: int, score: str) -> tuple[ImageSet, ImageSet]:
    """Training images and test images, both with labels.

    Args:
        subject: which images.
        image_px: side of the images.
        score: what needs them, for errors.

    Raises:
        ValueError: they can't be read, or lack labels or a test part; the message says what to type.
    """
    try:
        train, test = load_image_splits(
            subject.data,
            root=subject.root,
            image_px=image_px,
            train_images=subject.train_images,
            labelled_share=subject.labelled_share,
            columns=subject.columns,
        )
    except ValueError as error:
        # the loader's messages name the keys of a recipe
        message = str(error)
        for key in ("data.name", "data.root", "data.labelled_share", "data.image_column", "data.label_column"):
            message = message.replace(key, key.removeprefix("data.").replace("name", "data"))
        raise UserError(message) from error
    where = f"data={subject.data}" + (f" root={subject.root}" if subject.root else "")
    if train.labels is None:
        raise UserError(
            f"{where} has no labels, and {score} needs them: give images in one folder for each class, "
            "under train/ and test/"
        )
    if test is None:
        raise UserError(
            f"{where} has no test images, and {score} needs them: put their class folders under test/ or val/"
        )
    return train, test


def extract(
    network: nn.Module, image_set: ImageSet, subject: Subject, advance: Advance, indices: Tensor | None = None
) -> Tensor:
    """The network's features of the images, or of those at the indices, normalised as its own configuration says."""
    config = resolve_model_data_config(network)
    return extract_features(
        network,
        image_set,
        mean=config["mean"],
        std=config["std"],
        batch_size=subject.batch_size,
        device=subject.device,
        workers=subject.workers,
        indices=indices,
        advance=advance,
    )
