"""Table 5 out of its rows: means, paired differences with intervals, Holm's correction, and the Pareto plot."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from reproduction.shrink_times import time_shares
from ssl_adapt.report.paired_test import PairedDifference, holm, p_text, paired_difference

TITLES = {
    "original": "not cut",
    "removal": "removal, one-shot",
    "greedy": "removal, measured anew after each cut",
    "taylor": "squared Taylor, one-shot",
    "distilled": "removal, then distilled from the uncut network",
    "progressive": "removal, progressive",
    "theta": "theta",
    "random": "random",
    "largest": "most multiply-adds first",
    "uniform": "uniform depth",
    "scratch_tail": "small, from scratch, the tail's epochs",
    "scratch_whole": "small, from scratch, all epochs",
    "scratch_found": "removal's network, from scratch, all epochs",
}
STYLES = {  # colour and marker
    "original": ("#222222", "*"),
    "removal": ("#c8321f", "o"),
    "greedy": ("#a04a1f", "<"),
    "taylor": ("#d46a9f", "p"),
    "distilled": ("#7f1d1d", "d"),
    "progressive": ("#e08a1e", "s"),
    "theta": ("#7a5ba8", "v"),
    "random": ("#4f73a6", "x"),
    "largest": ("#8a6d3b", "h"),
    "uniform": ("#2f8f6b", "D"),
    "scratch_tail": ("#b6bec8", "^"),
    "scratch_whole": ("#6b7480", "P"),
    "scratch_found": ("#20262d", "X"),
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


def write_results(rows_path: Path, folder: Path, stem: str) -> None:
    """Write the table as Markdown, and the plot of accuracy over cost as SVG below `figures`."""
    rows = read_rows(rows_path)
    (folder / f"{stem}.md").write_text(to_markdown(rows), encoding="utf-8")
    (folder / "figures").mkdir(exist_ok=True)
    draw_pareto(rows, folder / "figures" / f"{stem}.svg")


def draw_pareto(rows: Sequence[Mapping[str, Any]], path: Path, seconds: Sequence[float] | None = None) -> None:
    """Mean accuracy of each arm over what its networks cost, one standard deviation as bars.

    Args:
        rows: of one network.
        path: of the SVG.
        seconds: for each row the measured time over the whole network's; None measures it now.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = {
        "multiply-adds over the whole network's": [row["share"] for row in rows],
        "measured time over the whole network's": time_shares(rows) if seconds is None else seconds,
    }
    scores = scores_by_seed(rows)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "table 5"}):
        figure = Figure(figsize=(9.5, 4.8), layout="constrained")
        for axes, (label, shares) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
            _draw_arms(axes, rows, scores, shares)
            axes.set(xlabel=label)
            axes.grid(color="#e3e6ea", linewidth=0.6)
        figure.axes[0].set(ylabel="score on the test images, %")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _draw_arms(axes: Any, rows: Sequence[Mapping[str, Any]], scores: Scores, shares: Sequence[float]) -> None:
    costs: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row, share in zip(rows, shares, strict=True):
        costs[row["arm"], row["budget"]].append(share)
    for arm, (color, marker) in STYLES.items():
        budgets = sorted(budget for other, budget in scores if other == arm)
        values = [[*scores[arm, budget].values()] for budget in budgets]
        if values:
            axes.errorbar(
                [mean(costs[arm, budget]) for budget in budgets],
                [mean(by_seed) for by_seed in values],
                [stdev(by_seed) if len(by_seed) > 1 else 0 for by_seed in values],
                label=TITLES[arm], color=color, marker=marker, markersize=5, linewidth=1.4, capsize=2,
            )  # fmt: skip


def _differences(scores: Scores, budgets: Sequence[float]) -> list[str]:
    pairs = [(arm, "random", budget) for arm in ("removal", "taylor", "progressive") for budget in budgets]
    found = [(p, paired_difference(scores.get((p[0], p[2]), {}), scores.get((p[1], p[2]), {}))) for p in pairs]
    found = [(pair, difference) for pair, difference in found if difference[3] > 0]
    corrected = holm([difference[2] for _, difference in found])
    lines = ["| difference | budget | points, 95 % interval | p | p, Holm | seeds |", "|---|---|---|---|---|---|"]
    for (pair, difference), p_holm in zip(found, corrected, strict=True):
        lines.append(_line(pair, difference, p_text(p_holm)))
    others = [
        ("removal", "largest"),
        ("greedy", "removal"),
        ("taylor", "largest"),
        ("taylor", "removal"),
        ("distilled", "removal"),
        ("removal", "uniform"),
        ("progressive", "removal"),
        ("theta", "random"),
    ]
    others += [
        (arm, scratch)
        for arm in ("removal", "distilled", "progressive", "scratch_found")
        for scratch in ("scratch_tail", "scratch_whole", "scratch_found")
        if arm != scratch
    ]
    for ours, theirs in others:
        for budget in budgets:
            difference = paired_difference(scores.get((ours, budget), {}), scores.get((theirs, budget), {}))
            if difference[3] > 0:
                lines.append(_line((ours, theirs, budget), difference, ""))
    return lines


def _line(pair: tuple[str, str, float], difference: PairedDifference, p_holm: str) -> str:
    points, half, p, seeds = difference
    interval = "" if math.isnan(half) else f" ± {half:.2f}"
    return f"| {pair[0]} - {pair[1]} | {pair[2]} | {points:+.2f}{interval} | {p_text(p)} | {p_holm} | {seeds} |"


def _cell(by_seed: Mapping[int, float]) -> str:
    values = [*by_seed.values()]
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
