"""Groups of runs that differ in more than their seeds, compared seed by seed; without torch."""

import glob
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.report.paired_test import holm, paired_difference
from ssl_adapt.runs.run_list import find_runs
from ssl_adapt.runs.run_record import RunRecord, read_run
from ssl_adapt.runs.same_recipe import FREE, differing_keys, value_at

SCORE_NAMES = {"knn_top1": "kNN top-1", "accuracy_top1": "accuracy top-1"}
MOST_SHOWN = 60  # characters of a value of a recipe


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds; means are over them.

    Attributes:
        name: that it was given.
        runs: their folders, in the order of the seeds.
        scores: in %, by seed.
        mean: of the scores.
        sd: their standard deviation (n - 1); None for one run.
        parameters: mean, after adaptation.
        macs: likewise, multiply-adds.
        seconds: mean, of training.
    """

    name: str
    runs: Sequence[Path]
    scores: Mapping[int, float]
    mean: float
    sd: float | None
    parameters: float
    macs: float
    seconds: float


@dataclass(frozen=True)
class Difference:
    """One group less the first, over pairs of runs with the same seed; None where one pair can't tell.

    Attributes:
        group: its name.
        against: the first group's.
        mean: in points.
        low: the lower end of the 95 % interval (Student's), in points.
        high: the upper end.
        p_value: of a two-sided paired t-test.
        p_holm: the same, corrected for the number of groups that are compared with the first.
        pairs: how many there are.
    """

    group: str
    against: str
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """What `compare_groups` found.

    Attributes:
        groups: in the order given.
        differences: of each group after the first from it.
        recipe: the keys in which the recipes of the groups differ, each with the value of every group.
        score_name: what is compared, such as "kNN top-1".
        protocol: how it was measured.
        seeds: that all groups have.
    """

    groups: Sequence[Group]
    differences: Sequence[Difference]
    recipe: Mapping[str, Mapping[str, Any]]
    score_name: str
    protocol: str
    seeds: Sequence[int]


def find_group(name: str, pattern: str) -> list[RunRecord]:
    """The runs that a pattern names: folders of runs, or folders with runs below them.

    Args:
        name: of the group, for errors.
        pattern: a path in which * stands for anything; several are parted by commas.

    Raises:
        ValueError: there is none, or one can't be read.
    """
    folders = [
        run
        for part in pattern.split(",")
        for path in sorted(glob.glob(os.path.expanduser(part)))
        if os.path.isdir(path)
        for run in find_runs(Path(path))
    ]
    if not folders:
        raise UserError(f"{name}={pattern}: there is no run there; ssl-adapt runs lists those that there are")
    return [read_run(folder) for folder in folders]


def compare_groups(groups: Mapping[str, Sequence[RunRecord]]) -> Comparison:
    """Scores, costs, recipes and paired differences of two groups of runs or more, the first of which is the baseline.

    Args:
        groups: finished runs by the name of their group; all groups have the same seeds.

    Raises:
        ValueError: they can't be compared: a run has no score, a seed is missing or there twice, or the scores were
            not measured alike. The message says which runs these are.
    """
    first, *others = groups
    by_seed = {name: _by_seed(name, runs) for name, runs in groups.items()}
    _check_pairs(by_seed)
    found = [_create_group(name, runs) for name, runs in by_seed.items()]
    judged = next(iter(by_seed[first].values()))
    scores = {group.name: group.scores for group in found}
    tests = [paired_difference(scores[name], scores[first]) for name in others]
    corrected = holm([test.p_value for test in tests])
    differences = [
        Difference(
            name,
            first,
            test.mean,
            _known(test.mean - test.half),
            _known(test.mean + test.half),
            _known(test.p_value),
            _known(p_holm),
            test.pairs,
        )
        for name, test, p_holm in zip(others, tests, corrected, strict=True)
    ]
    return Comparison(
        found,
        differences,
        _differing(by_seed),
        SCORE_NAMES[judged.score_key],
        judged.result.get("protocol", ""),
        tuple(by_seed[first]),
    )


def with_sd(mean: float, sd: float | None) -> str:
    """A mean with its standard deviation, if there is one."""
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


def shown_value(value: object) -> str:
    """A value of a recipe, or a section that another group lacks, on one line, cut where it is long."""
    if isinstance(value, dict):
        value = ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)
    text = "null" if value is None else str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _by_seed(name: str, runs: Sequence[RunRecord]) -> dict[int, RunRecord]:
    found: dict[int, RunRecord] = {}
    for run in sorted(runs, key=lambda run: run.recipe.seed):
        seed = run.recipe.seed
        if run.score is None:
            raise UserError(f"{run.folder} has no score yet: wait until it is finished, or name the runs without it")
        if seed in found:
            raise UserError(
                f"group {name} has two runs of seed {seed}: {found[seed].folder} and {run.folder}; name one of them"
            )
        found[seed] = run
    return found


def _check_pairs(by_seed: Mapping[str, Mapping[int, RunRecord]]) -> None:
    """Refuse seeds that a group lacks, and scores that mean different things."""
    runs = [run for group in by_seed.values() for run in group.values()]
    for run in runs[1:]:
        if _measured(run) != _measured(runs[0]):
            raise UserError(
                f"the scores are not measured alike: {runs[0].folder} by {_measured(runs[0])}, "
                f"{run.folder} by {_measured(run)}"
            )
    seeds = sorted({seed for runs in by_seed.values() for seed in runs})
    for seed in seeds:
        has = [name for name, runs in by_seed.items() if seed in runs]
        lacks = [name for name in by_seed if name not in has]
        if lacks:
            raise UserError(
                f"seed {seed} is in {has[0]} and not in {lacks[0]}: run it there too, or name the runs without it"
            )


def _measured(run: RunRecord) -> str:
    count = run.result.get("test_images")
    images = "" if count is None else f", {count:,} images"
    return f'{SCORE_NAMES[run.score_key]} "{run.result.get("protocol", "")}" on {run.recipe.data.name}{images}'


def _create_group(name: str, runs: Mapping[int, RunRecord]) -> Group:
    scores = {seed: round(100 * run.score, 6) for seed, run in runs.items() if run.score is not None}
    return Group(
        name,
        [run.folder for run in runs.values()],
        scores,
        fmean(scores.values()),
        stdev(scores.values()) if len(scores) > 1 else None,
        fmean(run.result.get("parameters", math.nan) for run in runs.values()),
        fmean(run.result.get("macs", math.nan) for run in runs.values()),
        fmean(run.seconds for run in runs.values()),
    )


def _differing(by_seed: Mapping[str, Mapping[int, RunRecord]]) -> dict[str, dict[str, Any]]:
    """The keys whose values differ between runs of the same seed; several values of a group are joined by commas."""
    dumps = {
        name: {seed: run.recipe.model_dump(exclude=FREE | {"seed": True}) for seed, run in runs.items()}
        for name, runs in by_seed.items()
    }
    first = next(iter(dumps.values()))
    keys = {key for dump in dumps.values() for seed in dump for key in differing_keys(first[seed], dump[seed])}
    found: dict[str, dict[str, Any]] = {}
    for key in sorted(keys):
        found[key] = {}
        for name, dump in dumps.items():
            values = [value_at(recipe, key) for recipe in dump.values()]
            distinct = [value for index, value in enumerate(values) if value not in values[:index]]
            found[key][name] = distinct[0] if len(distinct) == 1 else ", ".join(map(str, distinct))
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
