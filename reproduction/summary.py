"""The rows of a table: averages over seeds, costs, changes, agreement of seeds and tests."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from reproduction.paper import TABLES, Reported
from reproduction.records import Record
from reproduction.systems import METHODS, Method, Network
from ssl_adapt.report.paired_test import paired_difference


@dataclass(frozen=True)
class Row:
    """A network trained by a method, over its seeds. What is not defined, or was not measured, is None.

    Attributes:
        network: of the table.
        method: likewise.
        records: of the seeds that have finished, by seed.
        paper: the paper's numbers.
        average: accuracy in %.
        std: its standard deviation over seeds (n - 1), in %.
        hours: mean of the training, NAT's search included.
        hours_ratio: over the Original's of the same seeds.
        gaps: mean accuracy in % just before the fix, just after it, and after that with BatchNorm recalibrated.
        changed: mean number of changed edges, least and most.
        agreement: of the changes between seeds, see `jaccard`.
        parameters: mean.
        macs: mean.
        gain: over the Original of the same seeds, in points.
        p_value: of a two-sided paired t-test of that.
        against: key of the other method that it is compared with in the same way, or "".
        against_gain: over that of the same seeds, in points.
        against_p_value: of a two-sided paired t-test of that.
    """

    network: Network
    method: Method
    records: Mapping[int, Record]
    paper: Reported | None
    average: float
    std: float | None
    hours: float
    hours_ratio: float | None
    gaps: tuple[float, float, float] | None
    changed: tuple[float, int, int]
    agreement: float | None
    parameters: float
    macs: float
    gain: float | None
    p_value: float | None
    against: str
    against_gain: float | None
    against_p_value: float | None


def summarise(table: int, networks: Sequence[Network], records: Iterable[Record]) -> list[Row]:
    """The rows of the table, in the order of networks and methods, without those that have no run yet."""
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for record in records:
        found.setdefault((record.network, record.method), {})[record.seed] = record
    rows = []
    for network in networks:
        of_network = {key: found.get((network.key, key), {}) for key in network.methods}
        for key, own in of_network.items():
            if own:
                reported = TABLES[table].get((network.paper, METHODS[key].paper))
                of_network[key] = dict(sorted(own.items()))
                rows.append(_create_row(network, METHODS[key], of_network, reported))
    return rows


def jaccard(changes: Sequence[Mapping[str, str]]) -> float | None:
    """Mean over all pairs of seeds of |changes in both| / |changes in either|; None for one seed, or without changes.

    A change is an edge and what it became. Pairs without any change are left out.
    """
    pairs = [(a, b) for a, b in combinations([set(change.items()) for change in changes], 2) if a | b]
    return fmean(len(a & b) / len(a | b) for a, b in pairs) if pairs else None


def paired_p_value(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Of a two-sided paired t-test; None for fewer than two pairs, or where all differences are equal."""
    assert len(ours) == len(theirs)
    p_value = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs))).p_value
    return None if math.isnan(p_value) else p_value


def _compare(ours: Mapping[int, Record], theirs: Mapping[int, Record]) -> tuple[float | None, float | None]:
    """Points over the others on the seeds that both have, and their p-value."""
    shared = [seed for seed in ours if seed in theirs]
    pairs = [ours[seed].accuracy for seed in shared], [theirs[seed].accuracy for seed in shared]
    return fmean(pairs[0]) - fmean(pairs[1]) if shared else None, paired_p_value(*pairs)


def _create_row(
    network: Network, method: Method, of_network: Mapping[str, Mapping[int, Record]], paper: Reported | None
) -> Row:
    records = of_network[method.key]
    original = of_network.get("original", {}) if method.key != "original" else {}
    against = method.against or method.source
    accuracies = [record.accuracy for record in records.values()]
    shared = [seed for seed in records if seed in original]
    counts = [len(record.changed) for record in records.values()]
    gaps = [(r.before_fix, r.after_fix, r.recalibrated) for r in records.values()]
    is_fixed = all(value is not None for gap in gaps for value in gap)
    return Row(
        network,
        method,
        records,
        paper,
        fmean(accuracies),
        stdev(accuracies) if len(accuracies) > 1 else None,
        fmean(record.hours for record in records.values()),
        sum(records[seed].hours for seed in shared) / sum(original[seed].hours for seed in shared) if shared else None,
        tuple(fmean(gap[i] or 0.0 for gap in gaps) for i in range(3)) if is_fixed else None,  # type: ignore[arg-type]
        (fmean(counts), min(counts), max(counts)),
        jaccard([record.changed for record in records.values()]) if is_fixed else None,
        fmean(record.parameters for record in records.values()),
        fmean(record.macs for record in records.values()),
        *_compare(records, original),
        against,
        *_compare(records, of_network.get(against, {})),
    )
