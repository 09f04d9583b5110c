"""What ran, on what, how it ended, what it gave and what it cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair

from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.json_text import read_json, read_text
from ssl_adapt.page.chart_style import ACCENT
from ssl_adapt.page.page_section import FigureTable, PageFigure, PageSection, create_figure
from ssl_adapt.page.recipe_lines import recipe_lines
from ssl_adapt.page.run_costs import (
    final_cost,
    first_cost,
    read_architecture,
    seconds_by_part,
)
from ssl_adapt.page.run_facts import run_facts
from ssl_adapt.runs.run_list import go_on_command, state_of_run
from ssl_adapt.runs.run_record import RunRecord
from ssl_adapt.runs.short_text import short_time
from ssl_adapt.training.measurements import LANDMARKS as LONG_LANDMARKS

LANDMARKS = LONG_LANDMARKS | {"recalibrated": "the same, BatchNorm anew", "unaveraged": "the same, not averaged"}
MOST_BAD_IMAGES = 20  # that are named


class Tile(NamedTuple):
    """A main number, with a remark."""

    name: str
    value: str
    remark: str = ""


class Ending(NamedTuple):
    """How a run ended, why, and the command that goes on with it; None where there is nothing to go on with."""

    state: str
    reason: str
    command: str | None


def overview_section(run: RunRecord) -> PageSection:
    """The first section: how it ended, tiles of the main numbers, scores and costs as figures, facts, the recipe."""
    lines, packaged = recipe_lines(run.recipe.model_dump())
    values = {
        "ending": how_it_ended(run),
        "warnings": find_warnings(run),
        "tiles": _tiles(run),
        "facts": run_facts(run),
        "recipe": lines,
        "packaged": packaged,
        "differing": sum(line.packaged is not None for line in lines),
    }
    figures = [figure for figure in (_score_figure(run), _time_figure(run)) if figure is not None]
    return PageSection("overview", "What ran", values, figures)


def how_it_ended(run: RunRecord) -> Ending:
    """The state of the run in words, its reason, and how to go on."""
    try:
        state, reason = state_of_run(run.folder, run.status)
    except UserError as error:
        state, reason = "unknown", str(error)
    if state == "finished":
        return Ending(state, reason or "", None)
    if state == "running" and not reason:
        reason = f"begun or resumed {run.status.get('time', 'at an unknown time')}"
    path = run.folder / "recipe.yaml"
    was_asked = run.recipe.run.stop_after_epochs is not None
    command = go_on_command(run.folder, read_text(path, str(path)), was_asked_to_stop=was_asked)
    return Ending(state, reason or "", command)


def find_warnings(run: RunRecord) -> list[str]:
    """What did not go as it should have, or is worth knowing before the numbers are believed."""
    warnings = []
    bad = _bad_images(run.folder)
    if bad:
        named = ", ".join(list(bad)[:MOST_BAD_IMAGES]) + (", ..." if len(bad) > MOST_BAD_IMAGES else "")
        warnings.append(f"{_count(len(bad), 'image')} could not be read and were replaced: {named}")
    if skipped := run.of("nonfinite"):
        steps = ", ".join(f"{event['step']:,}" for event in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        warnings.append(
            f"{_count(len(skipped), 'batch', 'batches')} left out, as the loss was not finite: step {steps}"
        )
    for event in run.of("start")[1:]:
        warnings.append(f"resumed after step {event['step']:,}, {event.get('time', 'at an unknown time')}")
    for event in run.of("processes"):
        warnings.append(f"step {event['step']:,}: {event.get('change', 'another number of processes')}")
    for event in run.of("extended"):
        warnings.append(
            f"step {event['step']:,}: extended from {event.get('epochs_before')} to {event.get('epochs')} epochs"
        )
    return warnings


def _bad_images(folder: Path) -> Mapping[str, Any]:
    path = folder / "bad_images.json"
    found = read_json(read_text(path, str(path)), str(path)) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _tiles(run: RunRecord) -> list[Tile]:
    """The main numbers: what it gave, what changed, what it costs, how long it took."""
    name = "accuracy" if run.recipe.knn is None else "kNN top-1"
    tiles = []
    if run.score is not None:
        tiles.append(Tile(name, f"{run.score:.2%}", _interval_in_words(run.score, run.result.get("test_images"))))
        scores = run.result[run.score_key]
        before = [
            f"{word} {scores[key]:.2%}"
            for key, word in {"untrained": "untrained", "loaded": "as loaded", "raw_pixels": "raw pixels"}.items()
            if isinstance(scores.get(key), int | float)
        ]
        if before:
            first, *others = before
            word, value = first.rsplit(" ", 1)
            tiles.append(Tile(f"{name}, {word}", value, ", ".join(others)))
    architecture, cost = read_architecture(run.folder), final_cost(run)
    if architecture is not None:
        tiles.append(Tile("edges changed", f"{len(architecture.changed)} of {len(architecture.edges)}"))
    if cost is not None:
        began = first_cost(run)
        for what, now, was in (
            ("parameters", cost.parameters, began and began.parameters),
            ("multiply-adds", cost.macs, began and began.macs),
        ):
            tiles.append(Tile(what, short_number(now), _compared(now, was)))
    if seconds := run.seconds:
        tiles.append(Tile("training", short_time(seconds), "evaluations aside"))
    return tiles


def _compared(now: int, was: int | None) -> str:
    if not was:
        return ""
    return "as before" if now == was else f"{short_number(was)} before, {now / was - 1:+.1%}"


def short_number(value: int) -> str:
    """Three digits: 82.5 k, 3.30 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            scaled = value / unit
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f}{name}"
    return str(value)


def _interval_in_words(share: float, count: Any) -> str:
    if not isinstance(count, int) or count < 1 or not 0 <= share <= 1:
        return ""
    low, high = wilson_interval(share, count)
    return f"{low:.1%} to {high:.1%} (95 %), {count:,} images"


def _score_figure(run: RunRecord) -> PageFigure | None:
    """The score at each landmark, with the interval of the test images."""
    scores, count = run.result.get(run.score_key), run.result.get("test_images")
    known = scores if isinstance(scores, dict) else {}
    shares = {text: known[key] for key, text in LANDMARKS.items() if isinstance(known.get(key), int | float)}
    if not shares:
        return None
    images = count if isinstance(count, int) else 0  # runs of older releases do not tell
    intervals = {name: wilson_interval(share, images) if images else (share, share) for name, share in shares.items()}
    rows = [
        {"name": name, "score": share, "low": intervals[name][0], "high": intervals[name][1]}
        for name, share in shares.items()
    ]
    y = altair.Y("name:N").sort([row["name"] for row in rows]).title(None).axis(labelLimit=190)
    x = altair.X("score:Q").axis(format=".0%", tickCount=6).title(None).scale(zero=False)
    tooltip = [
        altair.Tooltip("name:N", title=" "),
        *(altair.Tooltip(f"{key}:Q", format=".2%", title=title) for key, title in
          {"score": "top-1", "low": "95 % from", "high": "to"}.items()),
    ]  # fmt: skip
    base = altair.Chart(altair.Data(values=rows)).encode(y=y, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=2, opacity=0.5).encode(x=x.scale(zero=False), x2="high")
    bars.encoding.x["shorthand"] = "low:Q"
    chart = altair.layer(bars, base.mark_point(filled=True, size=70, color=ACCENT, opacity=1).encode(x=x))
    name = "Accuracy" if run.recipe.knn is None else "kNN top-1"
    bars_mean = (
        "Bars: 95 % intervals (Wilson) over the test images, for this one network; another seed gives another one. "
    )
    return create_figure(
        "scores-with-intervals", f"{name} and its baselines",
        f"{name} of the network before, during and after the run.", chart,
        f"{bars_mean if images else ''}Measured: {run.result.get('protocol', 'as the recipe says')}.",
        height_px=30 + 24 * len(rows),
        table=FigureTable(("when", "top-1", "95 % from", "to"), [
            (row["name"], *(f"{row[key]:.2%}" for key in ("score", "low", "high"))) for row in rows
        ]),
    )  # fmt: skip


def _time_figure(run: RunRecord) -> PageFigure | None:
    """Where the time went."""
    parts = seconds_by_part(run)
    whole = sum(parts.values())
    if not whole:
        return None
    rows = [
        {"part": part, "seconds": seconds, "words": f"{short_time(seconds)}, {seconds / whole:.0%}"}
        for part, seconds in parts.items()
    ]
    y = altair.Y("part:N").sort(list(parts)).title(None).axis(labelLimit=190)
    base = altair.Chart(altair.Data(values=rows)).encode(
        y=y, x=altair.X("seconds:Q").axis(None).scale(domain=[0, 1.35 * max(parts.values())]),
        tooltip=[altair.Tooltip("part:N", title=" "), altair.Tooltip("words:N", title="time")],
    )  # fmt: skip
    chart = altair.layer(
        base.mark_bar(color=ACCENT, height={"band": 0.65}), base.mark_text(align="left", dx=5).encode(text="words:N")
    )
    timed = len([event for event in run.of("step") if event.get("ms")])
    return create_figure(
        "time-by-part", "Where the time went", "The time of the run by part: waiting for images, views, weights, theta "
        "and evaluation.", chart, f"Parts of a step as in the {timed:,} steps that were timed; start and export aside.",
        height_px=30 + 28 * len(rows), table=FigureTable(("part", "time, share"), _time_rows(rows)),
    )  # fmt: skip


def _time_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(str(row["part"]), str(row["words"])) for row in rows]
