"""Table 5 out of its rows: means, paired differences with intervals, Holm's correction, and the Pareto plot."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

TITLES = {
    "original": "not cut",
    "removal": "removal, one-shot",
    "progressive": "removal, progressive",
    "theta": "theta",
    "random": "random",
    "uniform": "uniform depth",
    "scratch_tail": "small network from scratch, as long as the others' tail",
    "scratch_whole": "small network from scratch, start and tail",
}
Scores = Mapping[tuple[str, float], Mapping[int, float]]  # (arm, budget) -> seed -> accuracy, the mean over draws


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a study."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scores_by_seed(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """Accuracy in % by arm and budget, and by seed."""
    values: dict[tuple[str, float], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row["arm"], row["budget"]][row["seed"]].append(row["accuracy"])
    return {key: {seed: mean(draws) for seed, draws in by_seed.items()} for key, by_seed in values.items()}


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float, float, int]:
    """Mean difference over common seeds, half of its 95 % interval, two-sided p, and the number of seeds."""
    seeds = sorted(ours.keys() & theirs.keys())
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    if len(seeds) < 2 or stdev(differences) == 0:
        return (mean(differences) if seeds else math.nan), math.nan, math.nan, len(seeds)
    half = stats.t.ppf(0.975, len(seeds) - 1) * stdev(differences) / math.sqrt(len(seeds))
    return mean(differences), float(half), float(stats.ttest_1samp(differences, 0).pvalue), len(seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction, in the order given; NaN stays, and counts as a test."""
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        if not math.isnan(p_values[index]):
            highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
            corrected[index] = highest
    return corrected


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy by arm and budget, then the differences that the plan names."""
    scores = scores_by_seed(rows)
    budgets = sorted({budget for arm, budget in scores if arm != "original"}, reverse=True)
    lines = ["| arm | " + " | ".join(f"{budget:.0%} of the multiply-adds" for budget in budgets) + " |"]
    lines.append("|---" * (len(budgets) + 1) + "|")
    for arm, title in TITLES.items():
        if arm != "original" and any((arm, budget) in scores for budget in budgets):
            cells = [_cell(scores.get((arm, budget), {})) for budget in budgets]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    original = scores.get(("original", 1.0), {})
    lines += ["", f"Not cut, trained on as long: {_cell(original)}.", "", *_differences(scores, budgets)]
    return "\n".join(lines) + "\n"


def _differences(scores: Scores, budgets: Sequence[float]) -> list[str]:
    pairs = [(arm, "random", budget) for arm in ("removal", "progressive") for budget in budgets]
    found = [(p, paired_difference(scores.get((p[0], p[2]), {}), scores.get((p[1], p[2]), {}))) for p in pairs]
    found = [(pair, difference) for pair, difference in found if difference[3] > 0]
    corrected = holm([difference[2] for _, difference in found])
    lines = ["| difference | budget | points, 95 % interval | p | p, Holm | seeds |", "|---|---|---|---|---|---|"]
    for (pair, difference), p_holm in zip(found, corrected, strict=True):
        lines.append(_line(pair, difference, f"{p_holm:.3f}"))
    others = [("removal", "uniform"), ("progressive", "removal"), ("theta", "random")]
    others += [(arm, scratch) for arm in ("removal", "progressive") for scratch in ("scratch_tail", "scratch_whole")]
    for ours, theirs in others:
        for budget in budgets:
            difference = paired_difference(scores.get((ours, budget), {}), scores.get((theirs, budget), {}))
            if difference[3] > 0:
                lines.append(_line((ours, theirs, budget), difference, ""))
    return lines


def _line(pair: tuple[str, str, float], difference: tuple[float, float, float, int], p_holm: str) -> str:
    points, half, p, seeds = difference
    return f"| {pair[0]} - {pair[1]} | {pair[2]} | {points:+.2f} ± {half:.2f} | {p:.3f} | {p_holm} | {seeds} |"


def _cell(by_seed: Mapping[int, float]) -> str:
    values = [*by_seed.values()]
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
