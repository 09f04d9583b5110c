"""Which classes are recognised, and which are taken for which."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair
import torch
from torch import Tensor

from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.page.chart_style import ACCENT, CLASSES
from ssl_adapt.page.page_section import PageFigure, create_figure

MOST_IN_MATRIX = 30  # classes; of more, the most confused pairs are listed
MOST_WITH_COUNTS = 12  # classes whose counts have room in the matrix
MOST_ROWS = 24  # classes in the chart of scores; of more, the best and the worst
PAIRS = 12
ROW_PX = 22


class ClassScore(NamedTuple):
    """How many of a class's images were predicted right, and the 95 % interval of that share."""

    name: str
    right: int
    images: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share that is right."""
        return self.right / self.images


class Confusion(NamedTuple):
    """Images of one class that were taken for another."""

    name: str
    taken_for: str
    images: int
    share: float


def count_confusions(labels: Tensor, predicted: Tensor, class_count: int) -> Tensor:
    """Images (K, K) of the class of a row that were predicted as that of the column."""
    flat = labels * class_count + predicted
    return torch.bincount(flat, minlength=class_count**2).view(class_count, class_count)


def class_scores(counts: Tensor, classes: Sequence[str]) -> list[ClassScore]:
    """The score of each class that has images, best first."""
    scores = []
    for name, right, count in zip(classes, counts.diag().tolist(), counts.sum(dim=1).tolist(), strict=True):
        if count:
            scores.append(ClassScore(name, right, count, *wilson_interval(right / count, count)))
    return sorted(scores, key=lambda score: -score.share)


def worst_confusions(counts: Tensor, classes: Sequence[str]) -> list[Confusion]:
    """The pairs of classes with the most confused images, most first."""
    wrong = counts - counts.diag().diag()
    images, places = wrong.flatten().sort(descending=True, stable=True)
    pairs = []
    for count, place in zip(images[:PAIRS].tolist(), places[:PAIRS].tolist(), strict=True):
        if count:
            row, column = divmod(place, len(classes))
            pairs.append(Confusion(classes[row], classes[column], count, count / int(counts[row].sum())))
    return pairs


def score_figure(scores: Sequence[ClassScore]) -> PageFigure:
    """The scores, each with its interval; of many classes, the best and the worst."""
    shown = [*scores[: MOST_ROWS // 2], *scores[MOST_ROWS // 2 :][-MOST_ROWS // 2 :]]
    note = "" if len(shown) == len(scores) else f"The best and the worst {MOST_ROWS // 2} of {len(scores):,} classes. "
    values = [
        {
            "class": s.name,
            "share": s.share,
            "low": s.low,
            "high": s.high,
            "right": s.right,
            "of": s.images,
            "words": f"{s.name}: {s.share:.1%} of {s.images:,} images, interval {s.low:.1%} to {s.high:.1%}",
        }
        for s in shown
    ]
    order = altair.Scale(domain=[s.name for s in shown])
    axis = altair.Axis(ticks=False, domain=False, labelLimit=140)
    base = altair.Chart(altair.Data(values=values)).encode(
        y=altair.Y("class:N", title=None, scale=order, axis=axis),
        tooltip=[
            altair.Tooltip("class:N"), altair.Tooltip("right:Q"), altair.Tooltip("of:Q"),
            *(altair.Tooltip(f"{key}:Q", format=".1%") for key in ("share", "low", "high")),
        ],
    )  # fmt: skip
    share = altair.X("low:Q", title="images predicted right", axis=altair.Axis(format="%", tickCount=5))
    chart = altair.layer(
        base.mark_rule(color=ACCENT, strokeWidth=2, opacity=0.6, aria=False).encode(
            share.scale(domain=[0, 1]), x2="high:Q"
        ),
        base.mark_point(color=ACCENT, filled=True, size=60, opacity=1).encode(x="share:Q", description="words:N"),
    )
    best, worst = scores[0], scores[-1]
    return create_figure(
        "class-scores", "Score of each class",
        f"The share of each class's images that is predicted right, from {best.name}, {best.share:.1%}, "
        f"to {worst.name}, {worst.share:.1%}.",
        chart,
        f"{note}Lines are 95 % intervals (Wilson's) over test images.",
        height_px=ROW_PX * len(shown),
    )  # fmt: skip


def confusion_figure(counts: Tensor, classes: Sequence[str], scores: Sequence[ClassScore]) -> PageFigure:
    """The confusion matrix, classes in the order of their scores."""
    order = [s.name for s in scores] + [name for name in classes if name not in {s.name for s in scores}]
    place = {name: classes.index(name) for name in order}
    values: list[dict[str, Any]] = []
    for name in order:
        total = int(counts[place[name]].sum())
        for guess in order:
            images = int(counts[place[name], place[guess]])
            share, kind = images / max(total, 1), "right" if name == guess else "wrong"
            values.append({"class": name, "predicted": guess, "images": images, "share": share, "kind": kind})
    scale = altair.Scale(domain=order)
    axes: dict[str, Any] = {"ticks": False, "domain": False, "labelLimit": 110}
    above = altair.Axis(orient="top", labelAngle=-60, **axes)
    base = altair.Chart(altair.Data(values=values)).encode(
        x=altair.X("predicted:N", title="predicted", scale=scale, axis=above),
        y=altair.Y("class:N", title="class", scale=scale, axis=altair.Axis(**axes)),
        tooltip=[
            altair.Tooltip("class:N"), altair.Tooltip("predicted:N"), altair.Tooltip("images:Q"),
            altair.Tooltip("share:Q", title="of its class", format=".1%"),
        ],
    )  # fmt: skip
    colour = altair.Color("kind:N", legend=None, scale=altair.Scale(domain=["right", "wrong"], range=list(CLASSES[:2])))
    depth = altair.FillOpacity("share:Q", legend=None, scale=altair.Scale(domain=[0, 1], range=[0.03, 0.8]))
    chart: Any = base.mark_rect(cornerRadius=2, aria=False).encode(color=colour, fillOpacity=depth)
    if len(order) <= MOST_WITH_COUNTS:
        chart = chart + base.mark_text(fontSize=10, aria=False).encode(text="images:Q")
    fact = "".join(
        f" Most often, {worst.name} is taken for {worst.taken_for}: {worst.images:,} times."
        for worst in worst_confusions(counts, classes)[:1]
    )
    return create_figure(
        "confusion", "Which class is taken for which",
        f"Confusion matrix: a row for each class, a column for each predicted one.{fact}",
        chart,
        "A row is a class, a column what its images were predicted as; the deeper the colour, the more of the class.",
        height_px=max(ROW_PX * len(order), 240),
    )  # fmt: skip
