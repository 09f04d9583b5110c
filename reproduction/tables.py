"""A table as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from reproduction.paper import SEEDS
from reproduction.summary import Row
from reproduction.systems import METHODS, NAT_ARGUMENTS, RULES, Scale

_TITLES = {
    1: "Table 1: accuracy on CIFAR-10",
    2: "Table 2: accuracy on CIFAR-10, seed by seed",
    3: "Table 3: accuracy on Tiny ImageNet",
    4: "Table 4: SimCLR on CIFAR-10, kNN",
}
_NOTES = """\
Accuracy is that of the last epoch on all test images, in %; std over seeds with n - 1. Hours are of the device
below, evaluations aside, NAT's search included, a control's source not; "x" is over the Original of the same seeds,
and says little where runs shared the device with others. The paper's columns are its own, of other sizes and GPUs.
Gain and p: points over the Original of the same seeds, two-sided paired t-test; then the same over the method named.
Agreement is the mean over pairs of seeds of common changes over all changes of both, chance included: any 24 of 27
edges have 0.8. BN: BatchNorm's statistics measured anew on 5,000 training images. Controls of a run that changed
nothing are not run: random changes would be that run, and from scratch the Original."""


def to_markdown(table: int, scale: Scale, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The table in the paper's layout, then changes, costs and tests, the seeds, and how it was measured."""
    parts = [f"# {_TITLES[table]} (scale={scale})"]
    if table != 2:
        parts += [_paper_layout(table, rows), "## What changed, and what it cost", _details(rows)]
    parts += [
        "## Seed by seed",
        _by_seed(rows, SEEDS if table in (1, 2) else {}),
        _NOTES,
        "## How it was measured",
        _measured(scale, rows, facts),
    ]
    return "\n\n".join(parts) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line for each run; what is not defined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("accuracy", "before_fix", "after_fix", "recalibrated", "hours", "parameters", "macs")
    writer.writerow(("network", "method", "seed", *names, "changed"))
    for row in rows:
        for record in row.records.values():
            values = (_rounded(getattr(record, name)) for name in names)
            changed = len(record.changed) if record.before_fix is not None else ""  # only a fix changes edges
            writer.writerow((record.network, record.method, record.seed, *values, changed))
    return text.getvalue()


def to_json(table: int, scale: Scale, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """Everything: facts, rows, and the record of each run with its changes."""
    listed: list[dict[str, Any]] = []
    for row in rows:
        values = asdict(row)
        values["network"], values["method"] = row.network.key, row.method.key
        values["arguments"] = list(row.network.arguments)
        values["records"] = [asdict(record) for record in row.records.values()]
        listed.append(values)
    data = {"table": table, "scale": scale, "facts": dict(facts), "rows": listed}
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _paper_layout(table: int, rows: Sequence[Row]) -> str:
    score = "kNN (%)" if table == 4 else "Avg Acc (%)"
    header = ("Model", "Method", score, "Std (%)", "Hours", "x", "Seeds", "Paper: avg", "std", "GPU hours")
    return markdown(
        header,
        [
            (
                *_names(rows, index), f"{row.average:.2f}", _number(row.std, ".2f"), f"{row.hours:.4f}",
                _number(row.hours_ratio, ".2f"), str(len(row.records)),
                *(_number(value, "g") for value in row.paper or (None, None, None)),
            )
            for index, row in enumerate(rows)
        ],
    )  # fmt: skip


def _details(rows: Sequence[Row]) -> str:
    header = (
        "Model", "Method", "Before the fix", "after", "after, BN", "At the end", "Edges changed", "Agreement",
        "Parameters", "MACs (M)", "Gain", "p", "Against", "Gain on it", "p of it",
    )  # fmt: skip
    return markdown(
        header,
        [
            (
                *_names(rows, index), *(_number(gap, ".1f") for gap in row.gaps or (None, None, None)),
                f"{row.average:.1f}", _changes(row), _number(row.agreement, ".2f"), f"{row.parameters:,.0f}",
                f"{row.macs / 1e6:.2f}", _number(row.gain, "+.2f"), _p_value(row.p_value),
                "-" if row.against_gain is None else METHODS[row.against].label.removeprefix("control: "),
                _number(row.against_gain, "+.2f"), _p_value(row.against_p_value),
            )
            for index, row in enumerate(rows)
        ],
    )  # fmt: skip


def _p_value(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _number(value, ".3f")


def _changes(row: Row) -> str:
    mean, least, most = row.changed
    if row.gaps is None:
        return "-"
    return f"{mean:.1f} ({least}-{most})" if least != most else f"{least}"


def _by_seed(rows: Sequence[Row], reported: Mapping[tuple[str, str], Sequence[float]]) -> str:
    seeds = sorted({seed for row in rows for seed in row.records})
    lines = []
    for index, row in enumerate(rows):
        own = (f"{row.records[seed].accuracy:.2f}" if seed in row.records else "-" for seed in seeds)
        paper = reported.get((row.network.paper, row.method.paper))
        theirs = [", ".join(f"{value:g}" for value in paper) if paper else "-"] if reported else []
        lines.append((*_names(rows, index), *own, *theirs))
    last = ["Paper: seeds 1 to 5"] if reported else []
    return markdown(("Model", "Method", *(f"({seed})" for seed in seeds), *last), lines)


def _measured(scale: Scale, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    networks = {row.network.key: row.network for row in rows}
    lines += [f"- {network.label}: `{' '.join(network.arguments)}`" for network in networks.values()]
    rules = {row.method.rule: RULES[row.network.rules or scale] for row in rows if row.method.rule}
    lines += [f"- {rule} theta: `{' '.join(rules[rule][rule])}`" for rule in sorted(rules)]
    if any(row.method.how == "nat" for row in rows):
        lines.append(f"- NAT's search: `{' '.join(NAT_ARGUMENTS[scale]) or 'as published'}`")
    return "\n".join(lines)


def _names(rows: Sequence[Row], index: int) -> tuple[str, str]:
    """Model and method; the model where it is another than in the row above."""
    row = rows[index]
    is_new = index == 0 or rows[index - 1].network.key != row.network.key
    return row.network.label if is_new else "", row.method.label


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)  # without the rounding error of percents


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; columns after the second are aligned to the right."""
    marks = ["---" if index < 2 else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, marks, *rows))
