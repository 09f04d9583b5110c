"""The kNN score of a network by name, beside the same network with random weights and raw pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from ssl_adapt.data import Columns, ImageSet, load_image_splits
from ssl_adapt.data_names import DATA_NAMES
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import extract_features, raw_pixels
from ssl_adapt.evaluation.frozen_network import find_network, input_size_px, load_network
from ssl_adapt.evaluation.knn import KnnResult, evaluate_knn
from ssl_adapt.evaluation.progress_bar import Advance, Begin, show_nothing
from ssl_adapt.evaluation.protocol import KnnProtocol

PIXEL_LIMIT_BYTES = 2 * 2**30  # raw pixels that would take more, as float32, are not scored


class RunDefaults(NamedTuple):
    """The evaluation settings in a run's recipe.

    The bank is the images that the run trained on. A supervised run has no protocol.
    """

    data: str
    root: str | None
    workers: int
    train_images: int | None = None
    protocol: KnnProtocol | None = None
    columns: Columns = Columns()


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """What is scored, on which images, and how.

    The attributes are the keys of `ssl-adapt knn`, and `network`, the name for `timm.create_model` of `model`. The
    search is exact where `probes` is None. `train_images` is the run's: their number, if it trained on a part of all
    images.
    """

    model: str
    network: str
    data: str
    root: str | None
    train_images: int | None
    columns: Columns
    image_px: int | None
    protocol: KnnProtocol
    probes: int | None
    baselines: bool
    pretrained: bool
    batch_size: int
    device: torch.device
    workers: int


class Score(NamedTuple):
    """A result, and the dimension of the features that it was measured on."""

    result: KnnResult
    features: int


@dataclass(frozen=True)
class Scores:
    """All scores of one call.

    Attributes:
        settings: of the call.
        image_px: side of the images.
        classes: names of the classes; the labels in the results are indices into them.
        model: the score of the network.
        random_weights: that of the same network with random weights; None if it was not measured.
        raw_pixels: that of raw pixels; None if it was not measured.
    """

    settings: ScoreSettings
    image_px: int
    classes: tuple[str, ...]
    model: Score
    random_weights: Score | None
    raw_pixels: Score | None


def create_settings(given: Mapping[str, Any], run: RunDefaults | None) -> ScoreSettings:
    """The settings from values by key, as `ssl-adapt knn` takes them, and from the run's recipe.

    With another `data` than the run's, the run's `root` is not used; a `protocol` replaces the run's.

    Raises:
        ValueError: there is no such model, no data is named, the protocol or the search is contradictory, or the
            device does not work.
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
    own_columns = run.columns if run and "data" not in given else Columns()
    return ScoreSettings(
        model=given["model"],
        network=network,
        data=data,
        root=given.get("root", run.root if run and "data" not in given else None),
        train_images=run.train_images if run and "data" not in given else None,
        columns=Columns(*(given.get(f"{name}_column", getattr(own_columns, name)) for name in Columns._fields)),
        image_px=given.get("image_px"),
        protocol=_create_protocol(given, run),
        probes=_find_probes(given),
        baselines=given.get("baselines", True),
        pretrained=pretrained,
        batch_size=given.get("batch_size", 500),
        device=_create_device(given.get("device", "cuda" if torch.cuda.is_available() else "cpu")),
        workers=given.get("workers", run.workers if run else 4),
    )


def score_model(settings: ScoreSettings, begin: Begin = show_nothing) -> Scores:
    """The scores of a network, of its architecture with random weights, and of raw pixels.

    The training images are the bank and the test images the queries, all of them, resized and not augmented,
    normalised as the network's own configuration says.

    Args:
        settings: what is scored, on which images, and how.
        begin: called at each stage; see `progress`.

    Raises:
        ValueError: the model or the data can't be used; the message says what to type.
    """
    network = load_network(settings.network, pretrained=settings.pretrained)
    image_px = input_size_px(network, settings.image_px)
    begin("reading the images", None)
    bank, queries = _load_labelled(settings, image_px)
    with_random = settings.baselines and settings.pretrained
    pixel_bytes = 4 * 3 * image_px**2 * (len(bank) + len(queries))
    with_pixels = settings.baselines and pixel_bytes <= PIXEL_LIMIT_BYTES

    def score(what: str, bank_features: Tensor, query_features: Tensor) -> Score:
        assert bank.labels is not None
        assert queries.labels is not None
        result = evaluate_knn(
            bank_features, bank.labels, query_features, queries.labels, settings.protocol,
            class_count=len(bank.classes), probes=settings.probes, advance=begin(f"{what}: search", len(queries)),
        )  # fmt: skip
        return Score(result, bank_features.shape[1])

    def score_network(what: str, network: nn.Module) -> Score:
        network.to(settings.device)
        features = (
            _extract(network, images, settings, begin(f"{what}: features of the {name}", len(images)))
            for name, images in (("bank", bank), ("queries", queries))
        )
        return score(what, *features)

    return Scores(
        settings,
        image_px,
        bank.classes,
        model=score_network("network", network),
        random_weights=score_network("random weights", load_network(settings.network, pretrained=False))
        if with_random
        else None,
        raw_pixels=score("raw pixels", raw_pixels(bank), raw_pixels(queries)) if with_pixels else None,
    )


def _create_protocol(given: Mapping[str, Any], run: RunDefaults | None) -> KnnProtocol:
    """The preset or the run's protocol, with the values that were given."""
    own = run.protocol if run and "protocol" not in given else None
    protocol = own or KnnProtocol.preset(given.get("protocol", "simclr_cifar"))
    changes = {part: given[part] for part in ("k", "temperature", "weighting") if part in given}
    weighting = changes.get("weighting", protocol.weighting)
    if weighting == "majority" and "temperature" in changes:
        raise UserError(
            f"temperature={changes['temperature']:g} has no meaning for a majority vote: "
            "leave it out or add weighting=exp"
        )
    if weighting == "majority":
        changes["temperature"] = None
    elif protocol.temperature is None and "temperature" not in changes:
        raise UserError("weighting=exp needs a temperature here: add temperature=0.5, or another number > 0")
    return replace(protocol, **changes)


def _find_probes(given: Mapping[str, Any]) -> int | None:
    """How many lists are searched; None in an exact search."""
    probes: int | None = given.get("probes")
    if given.get("search", "exact") == "exact" and probes is not None:
        raise UserError(f"probes={probes} has no meaning for the exact search: leave it out or add search=ivf")
    if "probes" not in given and given.get("search") == "ivf":
        raise UserError("search=ivf needs the number of lists to search: add probes=32, or more for a better recall")
    return probes


def _create_device(name: str) -> torch.device:
    try:
        torch.zeros(1, device=name).cpu()  # fails for unknown names and for missing hardware
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"device={name} does not work here ({reason}); type device=cpu") from error
    return torch.device(name)


def _load_labelled(settings: ScoreSettings, image_px: int) -> tuple[ImageSet, ImageSet]:
    """Training images to vote and test images to classify, both with labels."""
    try:
        train, test = load_image_splits(
            settings.data,
            root=settings.root,
            image_px=image_px,
            train_images=settings.train_images,
            columns=settings.columns,
        )
    except ValueError as error:
        # the loader's messages name the keys of a recipe
        message = (
            str(error)
            .replace("data.name", "data")
            .replace("data.root", "root")
            .replace("data.image_column", "image_column")
        )
        message = message.replace("data.label_column", "label_column")
        raise UserError(message) from error
    where = f"data={settings.data}" + (f" root={settings.root}" if settings.root else "")
    if train.labels is None:
        raise UserError(
            f"{where} has no labels, and kNN needs them: give images in one folder for each class, "
            "under train/ and test/"
        )
    if test is None:
        raise UserError(f"{where} has no test images, and kNN needs them: put their class folders under test/ or val/")
    if settings.protocol.k > len(train):
        raise UserError(
            f"k={settings.protocol.k} is more than the {len(train)} training images: type k={len(train)} or less"
        )
    return train, test


def _extract(network: nn.Module, image_set: ImageSet, settings: ScoreSettings, advance: Advance) -> Tensor:
    config = resolve_model_data_config(network)
    return extract_features(
        network,
        image_set,
        mean=config["mean"],
        std=config["std"],
        batch_size=settings.batch_size,
        device=settings.device,
        workers=settings.workers,
        advance=advance,
    )
