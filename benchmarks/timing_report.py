"""Timings as tables and as JSON values."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Result


def show_environment(console: Console, environment: Mapping[str, str]) -> None:
    """Print name and value of each entry."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in environment.items():
        table.add_row(name, value)
    console.print(table)


def show_result(console: Console, result: Result) -> None:
    """Print what is compared and a row for each contender, also for those that are faster than ours."""
    comparison = result.comparison
    console.print(f"\n[bold]{comparison.name}[/bold]\n{comparison.shows}")
    table = Table(header_style="dim", box=None, pad_edge=False)
    table.add_column("contender")
    for column in ("median ms", "IQR ms", f"time / {result.reference}", f"{comparison.unit}/s"):
        table.add_column(column, justify="right")
    for name, timing in result.timings.items():
        median_ms, iqr_ms = 1e3 * timing.median_sec, 1e3 * timing.iqr_sec
        throughput = f"{result.units_per_sec(name):,.0f}"
        table.add_row(name, f"{median_ms:,.2f}", f"{iqr_ms:,.2f}", f"{result.ratio(name):.2f}x", throughput)
    console.print(table)
    for note in comparison.notes:
        console.print(f"[dim]{note}[/dim]")


def to_json_values(result: Result) -> dict[str, Any]:
    """The comparison's plain data and, for each contender, what the table shows and every single time."""
    comparison = result.comparison
    return {
        "name": comparison.name,
        "shows": comparison.shows,
        "reference": result.reference,
        "unit": comparison.unit,
        "units_per_call": comparison.units_per_call,
        "notes": list(comparison.notes),
        "contenders": [
            {
                "name": name,
                "median_ms": 1e3 * timing.median_sec,
                "iqr_ms": 1e3 * timing.iqr_sec,
                "ratio": result.ratio(name),
                "units_per_sec": result.units_per_sec(name),
                "times_ms": [1e3 * seconds for seconds in timing.seconds],
            }
            for name, timing in result.timings.items()
        ],
    }
