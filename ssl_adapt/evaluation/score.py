"""The kNN score of a network by name, beside the same network with random weights and raw pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.features import raw_pixels
from ssl_adapt.evaluation.frozen_network import input_size_px, load_network
from ssl_adapt.evaluation.knn import KnnResult, evaluate_knn
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.evaluation.subject import RunDefaults, Subject, create_subject, extract, load_labelled

PIXEL_LIMIT_BYTES = 2 * 2**30  # raw pixels that would take more, as float32, are not scored


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """What is scored, on which images, and how.

    The search is exact where `probes` is None. Baselines are the network with random weights, and raw pixels.
    """

    subject: Subject
    protocol: KnnProtocol
    probes: int | None
    baselines: bool


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

    A `protocol` replaces the run's; see `create_subject` for the rest.

    Raises:
        ValueError: there is no such model, no data is named, the protocol or the search is contradictory, or the
            device does not work.
    """
    return ScoreSettings(
        subject=create_subject(given, run),
        protocol=_create_protocol(given, run),
        probes=_find_probes(given),
        baselines=given.get("baselines", True),
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
    subject = settings.subject
    network = load_network(subject.network, pretrained=subject.pretrained)
    image_px = input_size_px(network, subject.image_px)
    begin("reading the images", None)
    bank, queries = load_labelled(subject, image_px, "kNN")
    if settings.protocol.k > len(bank):
        raise UserError(
            f"k={settings.protocol.k} is more than the {len(bank)} training images: type k={len(bank)} or less"
        )
    with_random = settings.baselines and subject.pretrained
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
        network.to(subject.device)
        features = (
            extract(network, images, subject, begin(f"{what}: features of the {name}", len(images)))
            for name, images in (("bank", bank), ("queries", queries))
        )
        return score(what, *features)

    return Scores(
        settings,
        image_px,
        bank.classes,
        model=score_network("network", network),
        random_weights=score_network("random weights", load_network(subject.network, pretrained=False))
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
