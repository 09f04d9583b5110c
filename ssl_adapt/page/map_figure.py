"""The map of the images: a chart in which each point is an image, shown where the pointer is."""

from collections.abc import Sequence
from typing import Any

import altair
from torch import Tensor

from ssl_adapt.data import ImageSet
from ssl_adapt.page.chart_style import ACCENT, CLASSES, TEXT
from ssl_adapt.page.map_positions import Positions
from ssl_adapt.page.page_section import PageFigure, create_figure
from ssl_adapt.page.picture import picture_uri

HEIGHT_PX = 460
MAPS = ("t-SNE", "PCA")
VERDICTS = ("right", "wrong")


def map_points(
    images: ImageSet, chosen: Tensor, predicted: Tensor | None, names: Sequence[str], positions: Positions
) -> list[dict[str, Any]]:
    """The values of each point: its places, its picture, and what is known of the image.

    Args:
        images: all of them.
        chosen: (N,) the images on the map.
        predicted: (N,) their predicted classes.
        names: of their files.
        positions: their places.
    """
    points: list[dict[str, Any]] = []
    labels = None if images.labels is None else images.labels[chosen].tolist()
    for row, pixels in enumerate(images.images(chosen)):
        (u, v), (x, y) = positions.pca[row].tolist(), positions.tsne[row].tolist()
        point: dict[str, Any] = {"x": x, "y": y, "u": u, "v": v, "image": picture_uri(pixels, quality=70, most_px=48)}
        if labels is not None:
            point |= {"label": labels[row], "class": images.classes[labels[row]]}
        if labels is not None and predicted is not None:
            guess = int(predicted[row])
            point |= {"predicted": images.classes[guess], "verdict": VERDICTS[guess != labels[row]]}
        if names[row]:
            point["file"] = names[row]
        points.append(point)
    return points


def map_figure(points: Sequence[dict[str, Any]], classes: Sequence[str], what: str, pca_share: float) -> PageFigure:
    """The map; its points are filtered by class and by right or wrong, where these are known."""
    known = points[0].keys()
    has_classes, has_verdicts = "class" in known, "verdict" in known
    params = [_choice("map", "Map", MAPS[0], MAPS)]
    conditions = []
    if has_classes:
        params.append(_select("shown_class", "Class", ["all", *classes], [None, *range(len(classes))]))
        conditions.append("(shown_class === null || datum.label === shown_class)")
    if has_verdicts:
        params.append(_select("shown_verdict", "Predictions", ["all", *VERDICTS], [None, *VERDICTS]))
        conditions.append("(shown_verdict === null || datum.verdict === shown_verdict)")
    shown = " && ".join(conditions) or "true"
    base = altair.Chart(altair.Data(values=list(points))).transform_calculate(
        across="map == 'PCA' ? datum.u : datum.x", up="map == 'PCA' ? datum.v : datum.y"
    )
    whole = altair.Scale(domain=[-0.02, 1.02])
    base = base.encode(x=altair.X("across:Q", axis=None, scale=whole), y=altair.Y("up:Q", axis=None, scale=whole))
    others = base.mark_circle(size=10, color=TEXT, opacity=0.2, aria=False).transform_filter(f"!({shown})")
    tooltip = [altair.Tooltip(f"{key}:N") for key in ("image", "class", "predicted", "file") if key in known]
    ring = altair.condition("datum.verdict === 'wrong'", altair.value(0.06), altair.value(0.5))
    points_shown = (
        base.mark_point(size=42, strokeWidth=1.2, strokeOpacity=0.8, opacity=1, aria=False)
        .encode(**_colours(classes, has_classes=has_classes, has_verdicts=has_verdicts), fillOpacity=ring)
        .encode(tooltip=tooltip)
        .transform_filter(shown)
    )
    frame = altair.ViewBackground(stroke=TEXT, strokeOpacity=0.15)
    chart = altair.layer(others, points_shown, view=frame).add_params(*params)
    marks = " A disc is a right prediction, a ring a wrong one." if has_verdicts else ""
    return create_figure(
        "feature-map", f"Map of {len(points):,} {what}",
        f"Each point is one of {len(points):,} {what}; points whose features are alike lie near each other.",
        chart,
        f"Hover over a point to see its image.{marks} t-SNE keeps neighbours together: distances between groups mean "
        f"little. PCA is linear: these two components hold {pca_share:.0%} of the variance.",
        height_px=HEIGHT_PX,
    )  # fmt: skip


def _colours(classes: Sequence[str], *, has_classes: bool, has_verdicts: bool) -> dict[str, Any]:
    """By class, where there are colours enough, else by right and wrong, else one."""
    if has_classes and len(classes) <= len(CLASSES):
        field, domain = "class", list(classes)
    elif has_verdicts:
        field, domain = "verdict", list(VERDICTS)
    else:
        return {"fill": altair.value(ACCENT), "stroke": altair.value(ACCENT)}
    scale = altair.Scale(domain=domain, range=list(CLASSES[: len(domain)]))
    look: dict[str, Any] = {"scale": scale, "legend": altair.Legend(title=None, columns=5)}
    return {"fill": altair.Fill(f"{field}:N", **look), "stroke": altair.Stroke(f"{field}:N", **look)}


def _choice(name: str, title: str, value: str, options: Sequence[str]) -> altair.Parameter:
    return altair.param(name=name, value=value, bind=altair.binding_radio(options=list(options), name=title))


def _select(name: str, title: str, labels: Sequence[str], options: Sequence[Any]) -> altair.Parameter:
    return altair.param(
        name=name, value=None, bind=altair.binding_select(options=list(options), labels=list(labels), name=title)
    )
