"""The tau table out of the rows of reproduction.tau_study: python -m reproduction.tau_summary FOLDER.

Prints Markdown, and draws FOLDER/figure.svg.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import kendalltau

from reproduction.shrink_summary import read_rows
from ssl_adapt.report.paired_test import holm

SCORES = ("removal", "theta", "squared Taylor", "signed Taylor", "magnitude", "multiply-adds")
Row = dict[str, Any]
Pairs = list[tuple[np.ndarray, np.ndarray]]  # of each seed: a score, and what it is compared with


def by_group(rows: Iterable[Row]) -> dict[tuple[str, str, int, int], list[Row]]:
    """The rows of all seeds by network, group, epochs and steps of the oracle."""
    groups: dict[tuple[str, str, int, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["network"], row["group"], row["epochs"], row["steps"]].append(row)
    return dict(groups)


def pairs_of(rows: Sequence[Row], score: str) -> Pairs:
    """Seed by seed: the score and the oracle, the mean of its repeats."""
    return [(np.array(row["scores"][score]), np.mean(row["oracle"], axis=1)) for row in rows]


def mean_tau(pairs: Pairs) -> float:
    """Kendall's tau of each seed, averaged."""
    return float(np.nanmean([kendalltau(x, y).statistic for x, y in pairs]))


def reliability(rows: Sequence[Row]) -> float:
    """Tau between the first and the second repeat of the oracle."""
    return mean_tau([(repeats[:, 0], repeats[:, 1]) for repeats in (np.array(row["oracle"]) for row in rows)])


def interval(*scores: Pairs, draws: int) -> tuple[float, float]:
    """95 % of the taus of changes drawn with replacement, seed by seed; of two scores, of the difference of theirs."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        drawn = [rng.integers(len(x), size=len(x)) for x, _ in scores[0]]
        taus = [mean_tau([(x[i], y[i]) for (x, y), i in zip(pairs, drawn, strict=True)]) for pairs in scores]
        found.append(taus[0] - sum(taus[1:]))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


def chance(pairs: Pairs, draws: int) -> list[float]:
    """Taus of random orders with the same oracle."""
    rng = np.random.default_rng(0)
    return [mean_tau([(rng.permutation(len(y)), y) for _, y in pairs]) for _ in range(draws)]


def to_markdown(rows: Iterable[Row], draws: int = 1000) -> str:
    """The table of taus, and that of removal's tests."""
    header = ["network, changes", "epochs", "oracle's steps", "n", "repeats agree", *SCORES, "random, 95 %"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    tests, p_values = [], []
    for (network, group, epochs, steps), found in by_group(rows).items():
        removal, theta = pairs_of(found, "removal"), pairs_of(found, "theta")
        random = chance(removal, draws)
        cells = [f"{network}, {group}", f"{epochs}", f"{steps}", " + ".join(f"{len(x)}" for x, _ in removal)]
        cells.append(f"{reliability(found):+.2f}")
        for score in SCORES:
            known = all(len({*row["scores"].get(score, [])}) > 1 for row in found)  # else absent, or all are equal
            cells.append(_with_interval(pairs_of(found, score), draws=draws) if known else "")
        cells.append(f"±{np.quantile(np.abs(random), 0.95):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
        tau = mean_tau(removal)
        p_values.append((1 + sum(abs(other) >= abs(tau) for other in random)) / (1 + draws))
        rises = [fmean(x) for x, _ in removal], [fmean(y) for _, y in removal]
        low, high = interval(removal, theta, draws=draws)
        rest = f"{tau - mean_tau(theta):+.2f} [{low:+.2f}, {high:+.2f}]"
        tests.append([*cells[:3], f"{fmean(rises[0]):+.3f}", f"{fmean(rises[1]):+.3f}", f"{tau:+.2f}", rest])
    header = [*header[:3], "mean removal", "mean oracle", "tau of removal", "less theta's", "p", "Holm"]
    lines += ["", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for cells, p, corrected in zip(tests, p_values, holm(p_values), strict=True):
        lines.append("| " + " | ".join([*cells, f"{p:.3f}", f"{corrected:.3f}"]) + " |")
    return "\n".join(lines)


def _with_interval(pairs: Pairs, *, draws: int) -> str:
    low, high = interval(pairs, draws=draws)
    return f"{mean_tau(pairs):+.2f} [{low:+.2f}, {high:+.2f}]"


def draw(rows: Iterable[Row], path: Path, scores: Sequence[str] = SCORES[:2]) -> None:
    """Each change as a dot: a score against the oracle, whose repeats span the line; a column for each group."""
    groups = by_group(rows)
    figure = Figure(figsize=(2.6 * len(groups), 2.4 * len(scores)), layout="constrained")
    axes: Any = figure.subplots(len(scores), len(groups), squeeze=False)
    for column, ((network, group, epochs, _), found) in zip(axes.T, groups.items(), strict=True):
        for axis, score in zip(column, scores, strict=True):
            for row in found:
                oracle = np.array(row["oracle"])
                axis.vlines(row["scores"][score], oracle.min(1), oracle.max(1), color="#bbbbbb", linewidth=1)
                axis.plot(row["scores"][score], oracle.mean(1), ".", label=f"seed {row['seed']}")
            axis.set_xlabel(score, fontsize=8)
            axis.set_title(f"tau {mean_tau(pairs_of(found, score)):+.2f}", fontsize=8)
            axis.tick_params(labelsize=6)
            axis.locator_params(nbins=4)
        column[0].set_title(f"{network}, {group}, {epochs} epochs\n{column[0].get_title()}", fontsize=8)
    for line in axes:
        line[0].set_ylabel("oracle", fontsize=8)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tau"}):
        figure.savefig(path, metadata={"Date": None})


def main(given: Sequence[str] | None = None) -> None:
    """Print the table of a folder's rows, and draw its figure beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="that `reproduction.tau_study` wrote to")
    folder = parser.parse_args(given).folder
    if not (folder / "rows.jsonl").is_file():
        parser.error(f"{folder} has no rows.jsonl; `python -m reproduction.tau_study --folder {folder}` writes it")
    measured = read_rows(folder / "rows.jsonl")
    print(to_markdown(measured))
    draw(measured, folder / "figure.svg")


if __name__ == "__main__":
    main()
