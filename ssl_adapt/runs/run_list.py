"""The runs below a folder, each as a row that is read in a few milliseconds; without torch."""

import json
import os
import platform
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_adapt.errors import UserError
from ssl_adapt.json_text import read_text
from ssl_adapt.runs.lock import is_locked
from ssl_adapt.runs.run_record import (
    METRICS,
    RECIPE,
    RESULT,
    STATUS,
    Event,
    is_run,
    read_events,
    read_values,
    training_seconds,
)

STATES = ("running", "finished", "stopped", "interrupted", "failed", "killed", "damaged")
SHOWN = ("start", "epoch", "evaluation", "choice", "round", "fix")  # the events that a row rests on
# The values that are needed of a recipe, as the package writes it; to read all of it takes thirty times as long.
_NAME = re.compile(r"^name: (.*)$", re.MULTILINE)
_DIR = re.compile(r"^run:\n(?:  .*\n)*?  dir: (.*)$", re.MULTILINE)
_EPOCHS = re.compile(r"^train:\n(?:  .*\n)*?  epochs: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class RunRow:
    """A run in a list; what is not known yet is None.

    Attributes:
        name: its folder below the one that is listed.
        folder: its path.
        state: one of `STATES`; "killed": it said that it runs, and no process does; "damaged": it can't be read.
        reason: why it is in that state, if that is known.
        stage: of the last epoch: "architecture", "anneal" or "network".
        epoch: epochs done.
        epochs: that the recipe asks for.
        score: kNN or accuracy, the last that was measured, in [0, 1].
        parameters: of the network before and after adaptation.
        macs: its multiply-adds likewise.
        seconds: of training.
        changed: when it last wrote, in seconds of `time.time`.
        go_on: the command that continues it; None where nothing is left to do.
    """

    name: str
    folder: Path
    state: str
    reason: str | None = None
    stage: str | None = None
    epoch: int = 0
    epochs: int | None = None
    score: float | None = None
    parameters: tuple[int | None, int | None] = (None, None)
    macs: tuple[int | None, int | None] = (None, None)
    seconds: float = 0.0
    changed: float = 0.0
    go_on: str | None = None


def list_runs(folder: Path) -> list[RunRow]:
    """The runs in a folder and in those below it, by name; the folder may itself be a run.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that has runs in it, or below it")
    rows = [read_row(run, str(run.relative_to(folder)) if run != folder else run.name) for run in find_runs(folder)]
    return sorted(rows, key=lambda row: _natural(row.name))


def find_runs(folder: Path) -> Iterator[Path]:
    """The folders of runs at or below a folder; a run's own folders are not looked into."""
    if is_run(folder):
        yield folder
        return
    with os.scandir(folder) as entries:
        below = [entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    for path in below:
        try:
            yield from find_runs(Path(path))
        except OSError:  # another user's, or gone by now
            continue


def read_row(folder: Path, name: str) -> RunRow:
    """The row of a run; what is damaged in it is said there, and no error."""
    try:
        return _read_row(folder, name)
    except (OSError, UserError) as error:
        return RunRow(name, folder, "damaged", str(error))


def go_on_command(folder: Path, recipe: str, *, was_asked_to_stop: bool) -> str:
    """The command that continues a run.

    Args:
        folder: of the run, which may have been moved since.
        recipe: the text of its recipe.
        was_asked_to_stop: by `run.stop_after_epochs`, which would stop it again.
    """
    words = [f"recipe={folder / RECIPE}", "run.resume=auto"]
    name, place = _NAME.search(recipe), _DIR.search(recipe)
    made_in = Path("runs") / name[1] if name and place and place[1] == "null" else Path(place[1] if place else "")
    if made_in.resolve() != folder.resolve():
        words.append(f"run.dir={json.dumps(str(folder))}")
    if was_asked_to_stop:
        words.append("run.stop_after_epochs=null")
    return shlex.join(["ssl-adapt", "pretrain", *words])


def _read_row(folder: Path, name: str) -> RunRow:
    path = folder / RECIPE
    recipe = read_text(path, str(path))
    asked = _EPOCHS.search(recipe)
    if asked is None:
        raise UserError(f"{path} is not the recipe of a run: train.epochs is missing")
    status, result, events = read_values(folder / STATUS), read_values(folder / RESULT), read_events(folder, SHOWN)
    last: Mapping[str, Any] = next((event for event in reversed(events) if event["event"] == "epoch"), {})
    state, reason = state_of_run(folder, status)
    return RunRow(
        name,
        folder,
        state,
        reason,
        last.get("stage"),
        last.get("epoch", 0),
        int(asked[1]),
        _score(events, result),
        _cost("parameters", events, result),
        _cost("macs", events, result),
        training_seconds(events),
        max(_changed(folder / name) for name in (METRICS, STATUS, RECIPE)),
        None
        if state in ("running", "finished")
        else go_on_command(folder, recipe, was_asked_to_stop=state == "stopped"),
    )


def state_of_run(folder: Path, status: Mapping[str, Any]) -> tuple[str, str | None]:
    """The state and its reason; "killed" where the run says that it goes on and holds no lock, or has no process."""
    state, reason = status.get("state"), status.get("reason")
    if state is None:
        raise UserError(f"{folder / STATUS} is missing, or says no state")
    if state not in STATES:
        raise UserError(f"{folder / STATUS} says the state {str(state)[:40]!r}, which this release does not know")
    host, pid = status.get("host"), status.get("pid")
    is_here = host == platform.node()
    locked = is_locked(folder)
    if state != "running" or locked or (locked is None and not (is_here and _is_gone(pid))):
        return state, reason
    where = "" if is_here else f"; see that it no longer runs on {host}"
    return "killed", f"no process is at work in it any more{where}"


def _is_gone(pid: Any) -> bool:
    """Whether there is no process of that number."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, TypeError, ValueError, OverflowError):  # another user's; or no number
        return False
    return False


def _score(events: Sequence[Event], result: Mapping[str, Any]) -> float | None:
    for key in ("knn_top1", "accuracy_top1"):
        final = result.get(key)
        if isinstance(final, dict) and isinstance(final.get("result"), int | float):
            return float(final["result"])
    for event in reversed(events):
        if event["event"] == "evaluation":
            return event.get("knn_top1", event.get("accuracy_top1"))
    return None


def _cost(key: str, events: Sequence[Event], result: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Before and after adaptation; until then both are the same."""
    start = next((event[key] for event in events if event["event"] == "start" and key in event), None)
    fixed = [event[key] for event in events if event["event"] in ("round", "fix") and key in event]
    after = fixed[-1] if fixed else result.get(key, start)
    return (start if start is not None or fixed else after), after


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which seed=9 comes before seed=10."""
    return [(int(part), part) if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def age(row: RunRow) -> float:
    """Seconds since the run last wrote."""
    return max(0.0, time.time() - row.changed)
