"""Scores as tables for the terminal and as JSON."""

import json
import math
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ssl_adapt.evaluation.score import Score, Scores

MOST_CLASSES = 20  # up to which all are shown; of more, only the best and the worst
EXTREMES = 5


def print_scores(scores: Scores, console: Console | None = None) -> None:
    """Print the scores side by side, how they were measured, and the network's score for each class."""
    # a model's path or a class may hold brackets or colons, which are no markup
    console = console or Console(highlight=False, markup=False, emoji=False)
    settings, result = scores.settings, scores.model.result
    own_name = settings.subject.model if settings.subject.pretrained else f"{settings.subject.model}, random weights"
    rows = {
        own_name: scores.model,
        "the same network, random weights": scores.random_weights,
        "raw pixels": scores.raw_pixels,
    }
    table = _create_table("", "top-1", "top-5", "features", *([] if settings.probes is None else ["recall"]))
    for name, score in rows.items():
        if score is not None:
            recall = [] if score.result.recall is None else [f"{score.result.recall:.2%}"]
            table.add_row(name, f"{score.result.top1:.2%}", f"{score.result.top5:.2%}", f"{score.features:,}", *recall)
    console.print(table)
    if settings.baselines and scores.raw_pixels is None:
        console.print("raw pixels: not scored, they take too much memory", soft_wrap=True)
    counts = f"bank {result.bank_count:,}, queries {result.query_count:,}"
    counts += "" if settings.probes is None else f", IVF search with {settings.probes} probes"
    console.print(f"\n{result.protocol}; {counts}; {settings.subject.data} at {scores.image_px} px\n", soft_wrap=True)
    console.print(_class_table(scores))


def scores_to_json(scores: Scores) -> str:
    """Strict JSON text: what was scored and how, and each score; null is what was not measured.

    An IVF search adds `search` and `probes`, and the `recall` of each score.
    """
    settings, result = scores.settings, scores.model.result
    values = {
        "model": settings.subject.model,
        "pretrained": settings.subject.pretrained,
        "data": settings.subject.data,
        "root": settings.subject.root,
        "image_px": scores.image_px,
        "protocol": asdict(result.protocol),
        "bank": result.bank_count,
        "queries": result.query_count,
        **({} if settings.probes is None else {"search": "ivf", "probes": settings.probes}),
        "scores": {
            "model": _score_values(scores.model, scores.classes),
            "random_weights": _score_values(scores.random_weights, scores.classes),
            "raw_pixels": _score_values(scores.raw_pixels, scores.classes),
        },
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def _score_values(score: Score | None, classes: tuple[str, ...]) -> dict[str, Any] | None:
    if score is None:
        return None
    per_class = {classes[label]: None if math.isnan(top1) else top1 for label, top1 in score.result.per_class.items()}
    return {
        "top1": score.result.top1,
        "top5": score.result.top5,
        "features": score.features,
        "per_class": per_class,
        **({} if score.result.recall is None else {"recall": score.result.recall}),
    }


def _class_table(scores: Scores) -> Table:
    """Top-1 of the network for each class, in order; of many classes, for the best and the worst ones."""
    by_class = {scores.classes[label]: top1 for label, top1 in scores.model.result.per_class.items()}
    shown = list(by_class.items())
    title = "class"
    if len(shown) > MOST_CLASSES:
        measured = sorted((item for item in shown if not math.isnan(item[1])), key=lambda item: item[1], reverse=True)
        best, worst = measured[:EXTREMES], measured[EXTREMES:][-EXTREMES:]
        shown = best + worst
        title = f"class (best {len(best)} and worst {len(worst)} of {len(by_class):,})"
    table = _create_table(title, "top-1")
    for name, top1 in shown:
        table.add_row(name, "no images" if math.isnan(top1) else f"{top1:.2%}")
    return table


def _create_table(*columns: str) -> Table:
    table = Table(header_style="dim", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table
