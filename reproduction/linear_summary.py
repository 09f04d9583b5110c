"""The table of results/linear.md, from the lines of `linear_study`."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import ttest_rel

MEASURES = {
    "own classifier": "own classifier",
    "knn": "kNN",
    "features-1": "linear, 100 %",
    "features-0.1": "10 %",
    "features-0.01": "1 %",
    "sgd-1": "classic, 100 %",
    "sgd_plain-1": "SGD without crops, 100 %",
}
TESTS = (
    ("simclr_adapted", "simclr", "features-1"),
    ("simclr_adapted", "simclr", "features-0.1"),
    ("simclr_adapted", "simclr", "features-0.01"),
)
AGAINST_LABELS = (("0.1", "features-0.1"), ("0.01", "features-0.01"))

Scores = dict[tuple[str, str], dict[int, float]]  # by arm and measure: top-1 in % of each seed


def write_results(scores: Path, table: Path) -> None:
    """Write the table of all arms, the tests of the plan, and the splits' checksums."""
    rows = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
    found: Scores = defaultdict(dict)
    for row in rows:
        found[row["arm"], row["measure"]][row["seed"]] = 100 * row["top1"]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    lines = [
        "# Linear probes and few labels: scores",
        "",
        "Top-1 in %, mean ± standard deviation over seeds; the plan and what it says are in linear.md.",
        "",
        f"| network | seeds | {' | '.join(MEASURES.values())} |",
        "|---|---:" + "|---:" * len(MEASURES) + "|",
    ]
    for arm in arms:
        seeds = {seed for measure in MEASURES for seed in found.get((arm, measure), {})}
        cells = [_cell(found.get((arm, measure), {})) for measure in MEASURES]
        lines.append(f"| {arm} | {len(seeds)} | {' | '.join(cells)} |")
    lines += ["", "Paired differences in points, two-sided paired t-test:", ""]
    pairs = [((arm, measure), (other, measure)) for arm, other, measure in TESTS]
    for share, measure in AGAINST_LABELS:
        pairs.append((("simclr_adapted", measure), (f"labels_adapted-{share}", "own classifier")))
    pairs += [((arm, "features-1"), (arm, other)) for arm in arms for other in ("sgd-1", "sgd_plain-1")]
    lines += [text for first, second in pairs if (text := _difference(found, first, second))]
    lines += ["", "Intervals of each seed (Wilson, 95 %, over test images):", "", "```text"]
    lines += [
        f"{row['arm']} seed {row['seed']} {row['measure']}: {100 * row['top1']:.2f} "
        f"({100 * row['low']:.2f} to {100 * row['high']:.2f})"
        for row in rows
    ]
    lines += ["```", "", "Label splits: share, images, sha256 of the indices:", "", "```text"]
    splits = {
        (row["labels"]["share"], row["labels"]["images"], row["labels"]["sha256"]) for row in rows if row["labels"]
    }
    lines += [f"{share:g} {images} {sha256}" for share, images, sha256 in sorted(splits)]
    table.write_text("\n".join([*lines, "```", ""]), encoding="utf-8")


def _cell(by_seed: dict[int, float]) -> str:
    if not by_seed:
        return "-"
    values = [*by_seed.values()]
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _difference(found: Scores, first: tuple[str, str], second: tuple[str, str]) -> str:
    """A line, or "" where fewer than two seeds have both."""
    a, b = found.get(first, {}), found.get(second, {})
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 2:
        return ""
    left, right = ([values[seed] for seed in seeds] for values in (a, b))
    p = ttest_rel(left, right).pvalue
    return f"- {first[0]} {first[1]} minus {second[0]} {second[1]}: {mean(left) - mean(right):+.2f} (p {p:.3f})"
