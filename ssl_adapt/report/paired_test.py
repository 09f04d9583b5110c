"""Differences between runs that share their seeds: mean, interval, t-test, and Holm's correction for several."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy import stats


class PairedDifference(NamedTuple):
    """The mean of the differences of pairs; what their number does not allow to say is NaN.

    Attributes:
        mean: ours less theirs.
        half: half of its 95 % interval, Student's.
        p_value: of a two-sided t-test of the differences.
        pairs: how many there are.
    """

    mean: float
    half: float
    p_value: float
    pairs: int


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> PairedDifference:
    """The difference over the seeds that both have."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    count = len(differences)
    if count == 0:
        return PairedDifference(math.nan, math.nan, math.nan, 0)
    # Equal differences have no variance to test against.
    if count == 1 or math.isclose(max(differences), min(differences), abs_tol=1e-12):
        return PairedDifference(fmean(differences), math.nan, math.nan, count)
    half = stats.t.ppf(0.975, count - 1) * stdev(differences) / math.sqrt(count)
    return PairedDifference(fmean(differences), float(half), float(stats.ttest_1samp(differences, 0).pvalue), count)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction, in the order given; NaN stays, and counts as a test."""
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        if not math.isnan(p_values[index]):
            highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
            corrected[index] = highest
    return corrected


def p_text(p: float) -> str:
    """A p value as tables show it; empty for NaN."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
