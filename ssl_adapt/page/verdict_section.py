"""A verdict on the run in one sentence, with its rules beside it: without labels, or for training with labels."""

from collections.abc import Sequence
from typing import NamedTuple

from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.page.curves_section import MEASURED, collapsed_nt_xent
from ssl_adapt.page.page_section import PageSection
from ssl_adapt.page.verdict_rules import (
    Check,
    Level,
    Spread,
    check_best,
    check_collapse,
    check_collapsed_loss,
    check_fall,
    check_learning,
    check_memorised,
    check_width,
    check_zero_loss,
    describe_trend,
)
from ssl_adapt.runs.run_record import Event, RunRecord

BASELINES = {"untrained": "the untrained network", "loaded": "the network as loaded"}
LIMITS = (
    "Whether the features are good for a task. Wide features are needed and not enough: a network may spread images by "
    "their brightness. Labels, even a few hundred, tell: kNN or a linear probe.",
    "How this network compares with others: RankMe orders settings of one method on one data set, and is not meant for "
    "different networks, objectives or images (Garrido et al. 2023).",
    "What a good value of the loss is: it depends on batch size, temperature and views. Its trend at the end is also "
    "the learning rate's: a schedule that ends at 0 makes every loss flat.",
    "A collapse of the projector alone: the features measured are the backbone's, which may stay wide while nothing "
    "more is learnt.",
)
LIMITS_WITH_LABELS = (
    "How other seeds would do: the interval is that of the test images, for this network.",
    "How much is memorised where mixup, label smoothing or strong views keep the training loss high.",
)
OPENINGS: dict[Level, str] = {"right": "No sign of collapse", "unclear": "Look closer", "wrong": "Collapsed"}
OPENINGS_WITH_LABELS: dict[Level, str] = {"right": "It learns", "unclear": "Look closer", "wrong": "It has not learnt"}


class Verdict(NamedTuple):
    """What the rules say together: the worst of them decides."""

    level: Level
    sentence: str
    checks: Sequence[Check]


def verdict_section(run: RunRecord) -> PageSection | None:
    """The verdict; None before there is anything to judge."""
    has_labels = run.recipe.knn is None
    verdict = judge_with_labels(run) if has_labels else judge_without_labels(run)
    if verdict is None:
        return None
    values = {
        "verdict": verdict,
        "limits": LIMITS_WITH_LABELS if has_labels else LIMITS,
        "labels_say": None if has_labels else what_labels_say(run),
        "has_labels": has_labels,
    }
    return PageSection("verdict", "Is it going well?", values)


def judge_without_labels(run: RunRecord) -> Verdict | None:
    """By the features' width and spread and by the loss; None before both are measured."""
    measured = [event for event in run.of(*MEASURED) if "rank_me" in event and "feature_std" in event]
    losses = epoch_losses(run)
    later = [event for event in measured if event["event"] not in BASELINES]
    if not losses or not later:
        return None
    now, first = _spread(later[-1]), measured[0]
    before = _spread(first) if first["event"] in BASELINES else None
    checks = [check_collapse(before, now)]
    if before is not None:
        checks.append(check_width(before, now, BASELINES[first["event"]]))
    name = run.recipe.objective.name
    if name == "simclr":
        checks.append(check_collapsed_loss(losses, collapsed_nt_xent(run.recipe.data.batch_size)))
    elif name in ("byol", "vicreg"):
        checks.append(check_zero_loss(losses))
    return _conclude(run, [*checks, check_fall(losses)], losses, OPENINGS)


def judge_with_labels(run: RunRecord) -> Verdict | None:
    """By the training loss beside the accuracy on test images; None before both are measured."""
    key, losses = run.score_key, epoch_losses(run)
    untrained = [event[key] for event in run.of(*BASELINES) if key in event]
    later = [event for event in run.of("evaluation", "after_fix", "result") if key in event]
    if not losses or not later:
        return None
    accuracy, count = later[-1][key], run.result.get("test_images")
    low, high = wilson_interval(accuracy, count) if isinstance(count, int) and count > 0 else (accuracy, accuracy)
    checks = [check_learning(accuracy, low, untrained[0])] if untrained else []
    checks += [check_fall(losses), check_memorised(losses[-1], accuracy)]
    best = max(later, key=lambda event: float(event[key]))
    if len(later) > 1:
        checks.append(check_best(accuracy, best[key], best["step"], (high - low) / 2))
    return _conclude(run, checks, losses, OPENINGS_WITH_LABELS)


def what_labels_say(run: RunRecord) -> tuple[str, Level] | None:
    """The kNN score beside those of the untrained network and of raw pixels, in a sentence; None without labels.

    It is "right" where it is better than the network before training.
    """
    scores = [event for event in run.of(*MEASURED) if run.score_key in event]
    if not scores or scores[-1]["event"] in BASELINES:
        return None
    now = scores[-1][run.score_key]
    others = {
        words: event[run.score_key]
        for name, words in {**BASELINES, "raw_pixels": "raw pixels"}.items()
        if (event := run.last(name)) and run.score_key in event
    }
    level: Level = "unclear" if any(others.get(words, 0.0) >= now for words in BASELINES.values()) else "right"
    below = [f"{words} ({score:.1%})" for words, score in others.items() if score >= now]
    above = [f"{words} ({score:.1%})" for words, score in others.items() if score < now]
    parts = [f"better than {' and '.join(above)}"] if above else []
    parts += [f"no better than {' and '.join(below)}"] if below else []
    return f"kNN top-1 is {now:.1%}{', ' if parts else ''}{', but '.join(parts)}.", level


def epoch_losses(run: RunRecord) -> list[float]:
    """The mean loss of each epoch that had one."""
    return [float(event["loss"]) for event in run.of("epoch") if isinstance(event.get("loss"), int | float)]


def _conclude(run: RunRecord, checks: Sequence[Check], losses: Sequence[float], openings: dict[Level, str]) -> Verdict:
    """One sentence: the worst level, what it rests on, what holds beside it, and the trend of the loss."""
    if "DivergedError" in str(run.status.get("reason")):
        return Verdict("wrong", "Diverged: the loss is no longer finite; lower train.lr in another run.dir.", checks)
    level: Level = "right"
    for worse in ("unclear", "wrong"):
        if any(check.level == worse for check in checks):
            level = worse
    told = [check.because for check in checks if check.because and check.level == level]
    loss = next(check for check in checks if check.rule.startswith("the loss fell"))
    if loss.because not in told:
        told.append(loss.because)
    told[-1] = f"{told[-1]}, and" if len(told) == 1 else f"and {told[-1]};"
    advice = "; look at train.lr and train.weight_decay first" if level == "wrong" else ""
    so_far = "" if run.result else " so far"
    return Verdict(level, f"{openings[level]}{so_far}: {', '.join(told)} {describe_trend(losses)}{advice}.", checks)


def _spread(event: Event) -> Spread:
    return Spread(float(event["rank_me"]), float(event["feature_std"]))
