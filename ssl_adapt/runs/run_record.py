"""What a run left in its folder: recipe, events, status and result, read without torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_json, read_text
from ssl_adapt.recipe import Recipe, load_recipe

RECIPE, METRICS, STATUS, RESULT = "recipe.yaml", "metrics.jsonl", "status.json", "result.json"
MAX_METRICS_BYTES = 512 * 2**20  # a line of theta for 1,000 edges is about 60 KB, and a run has some fifty
Event = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it; the run may still be going on.

    Attributes:
        folder: of the run.
        recipe: what was asked for.
        events: the lines of `metrics.jsonl` in their order; each has `event` and `step`.
        status: of `status.json`: state, reason, time, host, versions; empty if there is none.
        result: of `result.json`; empty until the run is finished.
    """

    folder: Path
    recipe: Recipe
    events: Sequence[Event]
    status: dict[str, Any]
    result: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def seconds(self) -> float:
        """That training took, choices of changes included, evaluations not."""
        return training_seconds(self.events)

    def of(self, *names: str) -> list[Event]:
        """The events of these kinds, in their order."""
        return [event for event in self.events if event["event"] in names]

    def last(self, name: str) -> Event | None:
        """The last event of that kind, if there is one."""
        return next((event for event in reversed(self.events) if event["event"] == name), None)

    @property
    def score_key(self) -> str:
        """The name of the score that judges the run."""
        return "accuracy_top1" if self.recipe.knn is None else "knn_top1"

    @property
    def score(self) -> float | None:
        """The score after the run, in [0, 1]; None until then, or where nothing could be measured."""
        scores = self.result.get(self.score_key)
        value = scores.get("result") if isinstance(scores, dict) else None
        return float(value) if isinstance(value, int | float) else None


def training_seconds(events: Sequence[Event]) -> float:
    """That training took, choices of changes included, evaluations not."""
    return float(sum(event.get("seconds", 0) for event in events if event["event"] in ("epoch", "choice")))


def is_run(folder: Path) -> bool:
    """Whether the folder is that of a run."""
    return (folder / RECIPE).is_file()


def read_run(folder: Path) -> RunRecord:
    """The record of the run in a folder.

    Raises:
        ValueError: it is no run's folder, or its recipe or a file of it can't be read; the message names the file.
    """
    if not is_run(folder):
        raise UserError(f"{folder} is not the folder of a run: there is no recipe.yaml in it")
    try:
        recipe = load_recipe([f"recipe={folder / RECIPE}"])
    except ValueError as error:
        raise UserError(f"{folder / RECIPE} is no recipe of this release: {str(error).splitlines()[0]}") from None
    return RunRecord(folder, recipe, read_events(folder), read_values(folder / STATUS), read_values(folder / RESULT))


def read_values(path: Path) -> dict[str, Any]:
    """What `status.json` or `result.json` holds; empty if there is no such file.

    Raises:
        ValueError: it can't be read; the message names it.
    """
    value = read_json(read_text(path, str(path)), str(path)) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def read_events(folder: Path, only: Sequence[str] = ()) -> list[Event]:
    """The events of a run; a last line that is being written is left out.

    Args:
        folder: of the run.
        only: the kinds that are wanted, which saves reading the values of the others; empty: all.

    Raises:
        ValueError: a line is no event; the message names it.
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    events = []
    lines = read_text(path, str(path), MAX_METRICS_BYTES).split("\n")
    wanted = tuple(f'{{"event": "{name}"' for name in only)  # as `RunLog` writes them
    for number, line in enumerate(lines[:-1], start=1):  # the last one is empty, or half of a line
        if wanted and not line.startswith(wanted):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str) or "step" not in event:
            raise UserError(f"{path}: line {number} is no event of a run")
        events.append(event)
    return events
