"""The curves of a run over its steps."""

import math
from collections.abc import Sequence
from itertools import pairwise

from ssl_adapt.page.curve_chart import DEFAULT_SMOOTHING, Curve, Point, RunAxis, Stage, draw_curve
from ssl_adapt.page.page_section import PageSection
from ssl_adapt.recipe import AdaptSection
from ssl_adapt.runs.run_record import Event, RunRecord

MEASURED = ("untrained", "loaded", "evaluation", "before_fix", "after_fix", "result")  # evaluations of a run's network


def curves_section(run: RunRecord) -> PageSection | None:
    """What was logged over the steps, each as a figure; None before anything is."""
    steps, epochs = run.of("step"), run.of("epoch")
    often = steps if len(steps) >= len(epochs) else epochs
    evaluations = run.of(*MEASURED)
    curves = [
        _loss(run, often, "step" if often is steps else "epoch"),
        _rates(steps),
        Curve(
            "gradient-norm", "Gradient norm", "The norm of the weights' gradient over the steps.",
            _points(steps, "gradient_norm", "gradient norm"), is_smoothed=True,
        ),
        _scores(run, evaluations, epochs),
        Curve(
            "rank-me", "RankMe", "The effective rank of the features, RankMe, at each evaluation.",
            _points(evaluations, "rank_me", "RankMe"), form=".3~r",
            references=_baselines(run, "rank_me", "untrained", "loaded"),
            note="The number of directions that the features fill: 1 if they have collapsed.",
        ),
        Curve(
            "feature-spread", "Feature spread", "The spread of the unit-length features at each evaluation.",
            _points(evaluations, "feature_std", "spread"), form=".2~r",
            references=_baselines(run, "feature_std", "untrained", "loaded"),
            note="Standard deviation of unit-length features: 0 if all point the same way, at most 1 / √dimensions.",
        ),
        Curve(
            "images-per-second", "Images per second", "How many images a second each epoch trained on.",
            _points(epochs, "images_per_sec", "images/s"), form=",.0f", is_smoothed=True,
        ),
    ]  # fmt: skip
    shown = [curve for curve in curves if len({point.step for point in curve.points}) > 1]
    if not shown:
        return None
    axis = run_axis(run)
    values = {
        "stages": [stage.name for stage in axis.stages], "has_fix": bool(axis.fixes),
        "smoothing": DEFAULT_SMOOTHING if any(curve.is_smoothed for curve in shown) else None,
    }  # fmt: skip
    return PageSection("curves", "Curves", values, [draw_curve(curve, axis) for curve in shown])


def run_axis(run: RunRecord) -> RunAxis:
    """The steps of a run, its stages and the fixes, as far as it went."""
    last = max((int(event["step"]) for event in run.events), default=0)
    fixes = [int(event["step"]) for event in run.of("round", "fix")]
    adapt = run.recipe.adapt
    if adapt is None or not run.of("fix"):
        return RunAxis(last, [Stage("architecture", 0, last)] if adapt else [], fixes)
    fixed = fixes[-1]
    stages = [*_architecture_stages(adapt, [0, *fixes]), Stage("network", fixed, last)]
    return RunAxis(last, [stage for stage in stages if stage.end > stage.begin], fixes)


def _architecture_stages(adapt: AdaptSection, ends: Sequence[int]) -> list[Stage]:
    """Of each round its training and its annealing, which have the recipe's proportion."""
    share = adapt.epochs / (adapt.epochs + adapt.anneal_epochs)
    stages = []
    for begin, end in pairwise(ends):
        middle = round(begin + share * (end - begin))
        stages += [Stage("architecture", begin, middle), Stage("anneal", middle, end)]
    return stages


def _points(events: Sequence[Event], key: str, series: str) -> list[Point]:
    """The values that are numbers, as a series."""
    return [
        Point(int(event["step"]), float(value), series)
        for event in events
        if isinstance(value := event.get(key), int | float) and math.isfinite(value)
    ]


def _loss(run: RunRecord, events: Sequence[Event], of_what: str) -> Curve:
    objective, references = run.recipe.objective, []
    note = f"Of each {'logged step' if of_what == 'step' else 'epoch, the mean over its steps'}."
    if objective.name == "simclr":
        collapsed = collapsed_nt_xent(run.recipe.data.batch_size)
        references = [(f"collapsed: log(2N - 1) = {collapsed:.2f}", collapsed)]
        note += f" Dotted: NT-Xent of a network that maps all N = {run.recipe.data.batch_size} images to one point."
    if objective.name == "byol":
        note += " In BYOL a low loss may also mean that all images give the same features: look at RankMe and spread."
    return Curve(
        "loss", "Loss", f"The {objective.name} loss over the steps.", _points(events, "loss", "loss"),
        is_smoothed=True, references=references, note=note,
    )  # fmt: skip


def collapsed_nt_xent(batch_size: int) -> float:
    """NT-Xent of a network that maps all images to one point: every other view is as near as the right one."""
    return math.log(2 * batch_size - 1)


def _rates(steps: Sequence[Event]) -> Curve:
    weights, theta = _points(steps, "lr", "weights"), _points(steps, "theta_lr", "theta")
    points = [point for point in (*weights, *theta) if point.value > 0]
    return Curve(
        "learning-rates", "Learning rates" if theta else "Learning rate",
        f"The learning rate of the weights{' and of theta' if theta else ''} over the steps.", points,
        form=".1~e", is_log=bool(theta),
    )  # fmt: skip


def _scores(run: RunRecord, evaluations: Sequence[Event], epochs: Sequence[Event]) -> Curve:
    name = "accuracy" if run.recipe.knn is None else "kNN top-1"
    points = [
        *_points(evaluations, run.score_key, name),
        *_points(epochs, "probe_top1", "probe, test"),
        *_points(epochs, "probe_train_top1", "probe, training"),
    ]
    has_probe = any(point.series != name for point in points)
    title = f"{'Accuracy' if name == 'accuracy' else name}{' and probe' if has_probe else ''}"
    return Curve(
        "scores", title, f"The {name} on test images over the steps, beside its baselines.", points, form=".1%",
        references=_baselines(run, run.score_key, "raw_pixels"),
    )  # fmt: skip


def _baselines(run: RunRecord, key: str, *events: str) -> list[tuple[str, float]]:
    words = {"raw_pixels": "raw pixels", "untrained": "untrained", "loaded": "as loaded"}
    return [(words[event["event"]], event[key]) for event in run.of(*events) if isinstance(event.get(key), int | float)]
