"""What the section of the features shows, from the features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_adapt.data import epoch_order
from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.evaluation.progress_bar import Begin
from ssl_adapt.page.class_figures import (
    MOST_IN_MATRIX,
    Confusion,
    class_scores,
    confusion_figure,
    count_confusions,
    score_figure,
    worst_confusions,
)
from ssl_adapt.page.map_figure import map_figure, map_points
from ssl_adapt.page.map_positions import find_positions
from ssl_adapt.page.measure_features import Features, file_names, measure_features
from ssl_adapt.page.neighbour_pictures import NEIGHBOURS, Query, query_pictures
from ssl_adapt.page.page_section import PageFigure
from ssl_adapt.runs.run_record import RunRecord

MAP_IMAGES = 2000


def create_content(run: RunRecord, begin: Begin) -> tuple[dict[str, Any], list[PageFigure]]:
    """The values of the section's template, and its figures.

    Raises:
        ValueError: as `measure_features`.
    """
    features = measure_features(run, begin)
    begin("map of the images", None)
    figures = [figure for figure in [create_map(features)] if figure is not None]
    pairs: Sequence[Confusion] = ()
    if features.predicted is not None and features.images.labels is not None:
        classes = features.images.classes
        counts = count_confusions(features.images.labels, features.predicted, len(classes))
        scores = class_scores(counts, classes)
        figures.append(score_figure(scores))
        if len(classes) <= MOST_IN_MATRIX:
            figures.append(confusion_figure(counts, classes, scores))
        else:
            pairs = worst_confusions(counts, classes)
    begin("pictures", None)
    queries = query_pictures(features)
    values = {
        "lead": _lead(run, features), "sample": features.sample_note, "missing": _missing(features, figures),
        "pairs": pairs, "queries": queries, "query_title": _query_title(features, queries),
        "query_note": _query_note(features, queries),
    }  # fmt: skip
    return values, figures


def create_map(features: Features) -> PageFigure | None:
    """The map of at most `MAP_IMAGES` images; None if they are too few, or their features are all the same."""
    chosen = draw_map_images(len(features.images))
    positions = find_positions(features.rows[chosen])
    if positions is None:
        return None
    predicted = None if features.predicted is None else features.predicted[chosen]
    points = map_points(features.images, chosen, predicted, file_names(features.images, chosen), positions)
    what = "test images" if features.is_test else "training images"
    return map_figure(points, features.images.classes, what, positions.pca_share)


def draw_map_images(count: int) -> Tensor:
    """The images on the map: all, or as many as it holds, drawn once and for all."""
    return torch.arange(count) if count <= MAP_IMAGES else epoch_order(count, seed=1, epoch=0)[:MAP_IMAGES]


def _lead(run: RunRecord, features: Features) -> str:
    """The score in a sentence, and whether it is the run's own."""
    is_right = features.is_right
    if is_right is None:
        return ""
    share, count = is_right.double().mean().item(), len(is_right)
    low, high = wilson_interval(share, count)
    text = f"{share:.2%} of {count:,} test images are predicted right (95 % interval {low:.1%} to {high:.1%}): "
    text += f"{features.how}."
    if run.score is not None and round(run.score * count) != round(share * count):
        text += f" The run's own score is {run.score:.2%}."
    return text


def _missing(features: Features, figures: Sequence[PageFigure]) -> list[str]:
    """What can't be shown, and why."""
    sentences = []
    if features.images.labels is None:
        sentences.append("The images have no labels: nothing is predicted, and the map has one colour.")
    elif not features.is_test:
        sentences.append("There are no test images: nothing is predicted, and the training images are shown.")
    if not any(figure.name == "feature-map" for figure in figures):
        sentences.append("There is no map: the features of all images are the same, or there are fewer than 5 images.")
    return sentences


def _query_title(features: Features, queries: Sequence[Query]) -> str:
    what = "test" if features.is_test else "training"
    return f"{len(queries)} {what} images and the training images nearest to them"


def _query_note(features: Features, queries: Sequence[Query]) -> str:
    right = sum(query.picture.is_right is True for query in queries)
    drawn = "Drawn at random, always the same"
    if features.predicted is not None:
        drawn += f": {right} that are predicted right and {len(queries) - right} that are not"
    votes = "" if "kNN" not in features.how else f" The prediction is by {features.how}."
    signs = ""
    if features.images.labels is not None:
        of_image = "✓ and ✗: predicted right or wrong; of a neighbour" if features.predicted is not None else "✓ and ✗"
        signs = f" {of_image}: of the same class or another."
    near = f"{NEIGHBOURS} neighbours of each by the cosine of {features.layer} features, nearest first"
    return f"{drawn}. {near}.{signs}{votes}"
