"""Plots of theta over the steps of a run, as files."""

from collections.abc import Sequence
from pathlib import Path

import altair

from ssl_adapt.adaptation.architecture import edge_specs
from ssl_adapt.errors import UserError
from ssl_adapt.report.chart_file import write_chart
from ssl_adapt.report.run_architecture import create_plain_network, read_theta
from ssl_adapt.report.theta_chart import ENTRIES, theta_chart
from ssl_adapt.runs.run_record import METRICS, read_run

WIDTH_PX, HEIGHT_PX = 420, 300  # of each of the two charts


def draw_theta(run: Path, paths: Sequence[Path]) -> int:
    """Plot theta of every edge over the steps of a run into each of the files; the number of points in time.

    Edges that changed at the fix are red, and its step is marked, as is the threshold of none edges.
    theta_none is left out, as it has no gradient.

    Raises:
        ValueError: if the folder is not that of a run whose architecture adapted.
    """
    if not (run / METRICS).is_file():
        raise UserError(f"theta={run}: there is no {METRICS} in it; name the folder of a run")
    record = read_run(run)
    kinds = {}
    if record.recipe.adapt is not None:
        kinds = {spec.name: spec.kind for spec in edge_specs(create_plain_network(record))}
    history = read_theta(record, kinds)
    if history is None:
        what = "adapt" if record.recipe.adapt is None else "adapt by theta, or has not begun to"
        raise UserError(f"theta={run}: the architecture of this run did not {what}; name one with an `adapt` section")
    fixed = f", {len(history.changed)} changed at step {history.fix_step:,}" if history.fix_step is not None else ""
    charts = [theta_chart(history, entry).properties(width=WIDTH_PX, height=HEIGHT_PX) for entry in ENTRIES]
    title = altair.TitleParams(f"{record.name}: {len(history.theta)} edges{fixed}", anchor="middle", offset=14)
    figure = altair.hconcat(*charts, title=title)
    for file in paths:
        write_chart(figure.to_dict(), file)
    return len(history.steps)
