"""The drawing of a network's cells that the trackers of a run get; Altair is imported when it is made."""

from pathlib import Path

from torch import nn


def draw_tracked_cells(before: nn.Module, after: nn.Module, path: Path) -> None:
    """Draw the cells of a network before and after the fix into a file."""
    from ssl_adapt.report.comparison import draw_comparison

    draw_comparison(before, after, [path])
