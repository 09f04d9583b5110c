"""Some images beside their nearest training images, as pictures."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_adapt.data import ImageSet, epoch_order
from ssl_adapt.page.measure_features import Features, file_names, find_neighbours
from ssl_adapt.page.picture import picture_uri

QUERIES = 20
NEIGHBOURS = 8


@dataclass(frozen=True)
class Picture:
    """An image on the page.

    Attributes:
        uri: the image itself.
        alt: what it is, in words.
        caption: its class; "" without labels.
        is_right: whether the prediction is right, or the class that of the query; None where there is no such thing.
    """

    uri: str
    alt: str
    caption: str
    is_right: bool | None


@dataclass(frozen=True)
class Query:
    """An image, the class that it was taken for if that is wrong, and its neighbours, nearest first."""

    picture: Picture
    taken_for: str
    neighbours: tuple[Picture, ...]


def draw_queries(features: Features) -> Tensor:
    """Places (at most 20,) of the images that are shown: half of them predicted right and half wrong, if there are."""
    order = epoch_order(len(features.images), seed=0, epoch=0)
    is_right = features.is_right
    if is_right is None:
        return order[:QUERIES]
    right, wrong = order[is_right[order]], order[~is_right[order]]
    rights = max(QUERIES // 2, QUERIES - len(wrong))
    right = right[:rights]
    return torch.cat([right, wrong[: QUERIES - len(right)]])


def query_pictures(features: Features) -> list[Query]:
    """The drawn images with their neighbours."""
    chosen = draw_queries(features)
    found = find_neighbours(features, chosen, NEIGHBOURS)
    what = "test image" if features.is_test else "training image"
    queries = []
    for place, near, cosines in zip(chosen.tolist(), found.classes, found.cosines.tolist(), strict=True):
        label = _class_name(features.images, place)
        guess = "" if features.predicted is None else features.images.classes[int(features.predicted[place])]
        is_right = None if features.predicted is None else guess == label
        words = [what, label and f"of class {label}", "" if is_right is None else f"predicted as {guess}"]
        [query] = _pictures(features.images, torch.tensor([place]), [_sentence(*words)], [is_right])
        names = [_class_name(features.bank, row) for row in near.tolist()]
        alts = [
            _sentence(f"neighbour {number}", name, name and ("same class" if name == label else "another class"))
            + f", cosine {cosine:.2f}"
            for number, (name, cosine) in enumerate(zip(names, cosines, strict=True), start=1)
        ]
        agrees = [name == label if name else None for name in names]
        neighbours = tuple(_pictures(features.bank, near, alts, agrees))
        queries.append(Query(query, guess if is_right is False else "", neighbours))
    return queries


def _pictures(images: ImageSet, places: Tensor, alts: list[str], verdicts: list[bool | None]) -> list[Picture]:
    rows = zip(images.images(places), places.tolist(), file_names(images, places), alts, verdicts, strict=True)
    return [
        Picture(picture_uri(pixels), _sentence(alt, name), _class_name(images, place), is_right)
        for pixels, place, name, alt, is_right in rows
    ]


def _class_name(images: ImageSet, place: int) -> str:
    return "" if images.labels is None else images.classes[int(images.labels[place])]


def _sentence(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
