"""Rules that judge a run by what it measured: each is a sentence, and says what it rests on.

The measures are RankMe (Garrido et al. 2023) and the spread of unit-length features (SimSiam, Chen & He 2021, section
4.1), both of the backbone's features. Neither source gives thresholds: those here are ours, and a page states them.
The network before its first step is what they are compared with.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Level = Literal["right", "unclear", "wrong"]
LEAST_RANK = 2.0  # features of a lower one differ along a single direction
LEAST_SPREAD_SHARE = 0.25  # of the spread before the first step
NO_FALL = 0.01  # a loss that fell by a smaller share of itself has not fallen
NEAR_COLLAPSED_LOSS = 0.98  # of NT-Xent's value for a collapsed network
NEAR_ZERO_LOSS = 0.02  # of the first epoch's loss
TREND_EPOCHS = 5  # that a trend needs at least
TREND_SHARE = 0.05  # of the whole fall, in the last fifth of the epochs: more is a fall that goes on
MEMORISED = 0.2  # by which the probability of a training image's class is above the test accuracy


class Check(NamedTuple):
    """A rule and what it found.

    Attributes:
        rule: what should hold.
        found: the numbers.
        level: whether it holds.
        because: a clause for the verdict: what was found, in words.
    """

    rule: str
    found: str
    level: Level
    because: str


class Spread(NamedTuple):
    """RankMe of features, and the standard deviation of unit-length ones."""

    rank_me: float
    feature_std: float


def check_collapse(before: Spread | None, now: Spread) -> Check:
    """Whether the features still differ at all."""
    least = LEAST_SPREAD_SHARE * before.feature_std if before else 0.0
    rule = f"RankMe is at least {LEAST_RANK:g}, and the spread at least a quarter of what it was before training"
    found = f"RankMe {now.rank_me:.1f}, spread {now.feature_std:.3g}"
    if now.rank_me < LEAST_RANK:
        return Check(rule, found, "wrong", f"the features differ along hardly one direction (RankMe {now.rank_me:.2f})")
    if now.feature_std < least:
        assert before is not None
        return Check(
            rule, found, "wrong",
            f"the spread of the features fell from {before.feature_std:.3g} to {now.feature_std:.3g}",
        )  # fmt: skip
    return Check(rule, found, "right", "")


def check_width(before: Spread, now: Spread, of_what: str) -> Check:
    """Whether the features fill as many directions, and spread as far, as before training."""
    pairs = {"RankMe": (before.rank_me, now.rank_me), "the spread": (before.feature_std, now.feature_std)}
    fallen = [f"{name} fell from {was:.3g} to {value:.3g}" for name, (was, value) in pairs.items() if value < was]
    rule = f"RankMe and spread are not below those of {of_what}"
    found = ", ".join(f"{name.removeprefix('the ')} {was:.3g} → {value:.3g}" for name, (was, value) in pairs.items())
    if fallen:
        return Check(rule, found, "unclear", f"{' and '.join(fallen)}, below {of_what}")
    return Check(
        rule, found, "right",
        f"the features fill {now.rank_me:.1f} directions (RankMe, {before.rank_me:.1f} in {of_what}) and their spread "
        f"grew from {before.feature_std:.3g} to {now.feature_std:.3g}",
    )  # fmt: skip


def check_fall(losses: Sequence[float]) -> Check:
    """Whether the loss fell, from the first epoch to the mean of the last fifth."""
    first, last = losses[0], _end(losses)
    found = f"{first:.4g} → {last:.4g}"
    fell = first - last > NO_FALL * abs(first)
    because = f"the loss fell from {first:.4g} to {last:.4g}" if fell else f"the loss has not fallen ({found})"
    return Check(f"the loss fell by more than {NO_FALL:.0%}", found, "right" if fell else "unclear", because)


def check_collapsed_loss(losses: Sequence[float], collapsed: float) -> Check:
    """Whether NT-Xent is below its value for a network that maps all images to one point."""
    last, rule = _end(losses), f"NT-Xent is under {NEAR_COLLAPSED_LOSS:.0%} of log(2N - 1), its value for one point"
    is_below = last < NEAR_COLLAPSED_LOSS * collapsed
    because = "" if is_below else f"the loss is that of a network which maps all images to one point ({collapsed:.2f})"
    return Check(rule, f"{last:.2f} of {collapsed:.2f}", "right" if is_below else "wrong", because)


def check_zero_loss(losses: Sequence[float]) -> Check:
    """Whether a loss that a constant output brings to 0 is above it."""
    last, share = _end(losses), _end(losses) / losses[0] if losses[0] else 0.0
    rule = f"the loss is above {NEAR_ZERO_LOSS:.0%} of the first epoch's: a constant output brings it to 0"
    is_above = share > NEAR_ZERO_LOSS
    because = "" if is_above else f"the loss is almost 0 ({last:.3g}), which a constant projection gives as well"
    return Check(rule, f"{share:.1%}", "right" if is_above else "unclear", because)


def describe_trend(losses: Sequence[float]) -> str:
    """Where the loss goes at the end, in words."""
    if len(losses) < TREND_EPOCHS:
        return f"its trend can't be told from {len(losses)} epoch{'' if len(losses) == 1 else 's'}"
    size = len(losses) // 5
    before, last = sum(losses[-2 * size : -size]) / size, _end(losses)
    whole = abs(losses[0] - last)
    if not whole or abs(before - last) <= TREND_SHARE * whole:
        return "it is flat at the end"
    return "it is still falling" if last < before else "it rises at the end"


def check_learning(accuracy: float, low: float, untrained: float) -> Check:
    """Whether the accuracy, of which `low` is the lower end of the interval, is above that of the untrained network."""
    is_above = low > untrained
    because = (
        f"{accuracy:.1%} of the test images are right ({untrained:.1%} before training)"
        if is_above
        else f"the accuracy, {accuracy:.1%}, is no better than the untrained network's {untrained:.1%}"
    )
    rule = "the accuracy's 95 % interval is above the untrained network's accuracy"
    return Check(rule, f"{untrained:.1%} → {accuracy:.1%}", "right" if is_above else "wrong", because)


def check_memorised(loss: float, accuracy: float) -> Check:
    """Whether training images are known much better than test images."""
    known = math.exp(-loss)
    is_memory = known - accuracy > MEMORISED
    rule = (
        "exp(-loss), the probability of a training image's class (a geometric mean), is at most "
        f"{100 * MEMORISED:.0f} points above the accuracy"
    )
    because = (
        f"training images are known by heart: their class gets a probability of {known:.0%}, and {accuracy:.0%} of the "
        "test images are right"
    )
    found = f"{known:.0%} in training, {accuracy:.0%} in test"
    return Check(rule, found, "unclear" if is_memory else "right", because if is_memory else "")


def check_best(accuracy: float, best: float, step: int, half_interval: float) -> Check:
    """Whether the accuracy fell again after its best."""
    has_fallen = best - accuracy > half_interval
    because = f"the accuracy fell from its best, {best:.1%} after step {step:,}" if has_fallen else ""
    rule = "the accuracy is not below the best of all epochs by more than half of its interval"
    return Check(rule, f"{accuracy:.1%}, best {best:.1%}", "unclear" if has_fallen else "right", because)


def _end(losses: Sequence[float]) -> float:
    """The mean of the last fifth of the epochs."""
    size = max(1, len(losses) // 5)
    return sum(losses[-size:]) / size
