"""The curves of a run over its steps."""

import altair

from ssl_adapt.page.page_section import PageSection, create_figure
from ssl_adapt.runs.run_record import RunRecord


def curves_section(run: RunRecord) -> PageSection | None:
    """Loss and the rest over the steps; None before the first one is logged."""
    events = [event for event in run.of("step", "epoch") if event.get("loss") is not None]
    if not events:
        return None
    points = altair.Data(values=[{"step": event["step"], "loss": event["loss"]} for event in events])
    chart = altair.Chart(points).mark_line().encode(x="step:Q", y=altair.Y("loss:Q").scale(zero=False))
    return PageSection("curves", "Curves", {}, [create_figure("loss", "Loss", "The loss over the steps.", chart)])
