"""What a run logs of its architecture: what was chosen and why, and the network before and after the fix."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import nn

from ssl_adapt.adaptation.adaptation import EdgeState
from ssl_adapt.adaptation.architecture import Architecture, edge_specs, unmixed
from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.adaptation.removal import Score
from ssl_adapt.evaluation.monitor import Evaluation, Monitor
from ssl_adapt.recipe import AdaptSection
from ssl_adapt.runs.folder import RunFolder
from ssl_adapt.runs.log import RunLog
from ssl_adapt.training.choice import Choice
from ssl_adapt.training.grow import open_branches
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.measurements import measure_network
from ssl_adapt.training.pictures import DrawCells, log_cells
from ssl_adapt.training.plan import macs_of
from ssl_adapt.training.schedules import Stages

MOST_ROWS = 12  # of a table of scores, beside the changes that are made
COLUMNS = {  # what a score says, and how it was measured
    "removal": ("loss with it, less without", "forward passes"),
    "taylor": ("sum of (weight x gradient)²", "passes forward and back"),
    "gradmax": ("squared gradient of its last layer", "passes forward and back"),
}
RECALIBRATED = (
    "BatchNorm recalibrated: the fixed network's {name} top-1 with BatchNorm's running means and variances measured "
    "anew on training images, for this row alone. A fix changes what BatchNorm sees, and the statistics of the run "
    "follow only as it trains on: this row is without that lag.\n"
)


def adapt_network(
    log: RunLog,
    folder: RunFolder,
    monitor: Monitor,
    learner: Learner,
    stages: Stages,
    choose: Callable[[int], Choice],
    draw_cells: DrawCells | None,
    step: int,
) -> None:
    """What is due before a step: choose what changes, and fix it.

    Args:
        log: shows both.
        folder: keeps the architecture.
        monitor: judges the network before and after the last fix.
        learner: has the network.
        stages: when.
        choose: what changes in a round.
        draw_cells: for the trackers.
        step: steps done.
    """
    adapt = learner.adapt
    is_choosing = adapt is not None and (adapt.score != "theta" or adapt.budget is not None)  # and not theta alone
    index = stages.round_chosen_before(step) if is_choosing else None
    is_due = adapt is not None and stages.is_fixed_before(step)
    before = measure_before(log, monitor, learner, step) if is_due and step >= stages.fix_step else None
    if index is not None:
        log_choice(log, learner, choose, index, stages.rounds, step)
    if before is not None:
        log_fix(log, folder, monitor, learner, before, draw_cells, step)
    elif is_due:
        log_round(log, folder, learner, step)


def log_round(log: RunLog, folder: RunFolder, learner: Learner, step: int) -> None:
    """Fix what a round changed, and say what the network costs now; the last round ends with `log_fix`."""
    architecture = learner.fix()
    folder.save_architecture(architecture.to_json())
    parameters, macs = count_parameters(learner.network.backbone), macs_of(learner.network.backbone, learner.image_px)
    log.record("round", step=step, changed=architecture.changed, parameters=parameters, macs=macs)
    log.say(
        f"Fixed after step {step:,}: {len(architecture.changed)} of {len(architecture.edges)} edges changed so far, "
        f"{parameters:,} parameters, {macs:,} multiply-adds\n"
    )


def log_choice(
    log: RunLog, learner: Learner, choose: Callable[[int], Choice], index: int, rounds: int, step: int
) -> None:
    """Choose what changes in a round, say what the choice rests on and what it cost, and begin to change it."""
    assert learner.adapt is not None
    with log.clock_stopped():
        choice = choose(index)
    choices = {name: change.choice for change in choice.changes for name in change.edges}
    log.record(
        "choice", step=step, round=index + 1, rounds=rounds, score=learner.adapt.score, choices=choices,
        scores={str(score.change): _recorded(score) for score in choice.scores},
        passes=choice.passes, seconds=choice.seconds,
    )  # fmt: skip
    of_rounds = f", round {index + 1} of {rounds}" if rounds > 1 else ""
    what, passes = COLUMNS.get(learner.adapt.score, ("", ""))
    cost = f", {choice.passes:,} {passes} in {choice.seconds:.1f} s" if choice.passes else ""
    log.say("")
    changes = f"{len(choice.changes)} change{'' if len(choice.changes) == 1 else 's'}"
    title = f"Chosen after step {step:,} by {learner.adapt.score}{of_rounds}{cost}: {changes}"
    if choice.scores:
        log.show_table(title, ["change", what, ""], _score_rows(choice, learner.adapt.score))
    elif choice.changes:
        log.show_table(title, ["change"], [[str(change)] for change in choice.changes])
    else:
        log.say(f"{title}\n", style="bold")
    if learner.adapt.start_share is not None:
        open_branches(learner, [*choices])
    elif choices or learner.adaptation:
        learner.change(choices)


class Before(NamedTuple):
    """The network before what changes at once and is fixed.

    Attributes:
        evaluation: what it scores.
        cost: its parameters and multiply-adds.
        cells: the network without its weights, on the meta device.
    """

    evaluation: Evaluation
    cost: tuple[int, int]
    cells: nn.Module


def measure_before(log: RunLog, monitor: Monitor, learner: Learner, step: int) -> Before:
    """What the network is before its last choice is made."""
    with log.clock_stopped():
        plain = unmixed(learner.network.backbone)
        cost = count_parameters(plain), macs_of(plain, learner.image_px)
        return Before(measure_network(log, "before_fix", monitor, learner, step), cost, plain.to("meta"))


def log_fix(
    log: RunLog,
    folder: RunFolder,
    monitor: Monitor,
    learner: Learner,
    before: Before,
    draw_cells: DrawCells | None,
    step: int,
) -> None:
    """Fix the architecture, measure the network again, as `measure_before` did, and show what changed."""
    with log.clock_stopped():
        backbone, px = learner.network.backbone, learner.image_px
        states = learner.adaptation.states() if learner.adaptation else []
        architecture = learner.fix()
        after = measure_network(log, "after_fix", monitor, learner, step)
        recalibrated = measure_network(log, "recalibrated", monitor, learner, step)
        cost_after = count_parameters(backbone), macs_of(backbone, px)
    folder.save_architecture(architecture.to_json())
    log.record(
        "fix", step=step, changed=architecture.changed, parameters=cost_after[0], macs=cost_after[1],
        theta={state.spec.name: state.theta for state in states},
    )  # fmt: skip
    log_cells(log, before.cells, backbone, step, draw_cells)
    log.say("")
    _show_changed(log, learner, architecture, states, step)
    _show_costs(log, monitor, (before.cost, cost_after), (before.evaluation, after, recalibrated))


def _recorded(score: Score) -> tuple[float | None, float | None, int]:
    """Value, error and batches; None for what is not finite, which JSON can't say."""
    value, error = (number if math.isfinite(number) else None for number in (score.value, score.error))
    return value, error, score.batches


def _score_rows(choice: Choice, rule: str) -> list[list[str]]:
    """The changes that are made, then those that come nearest to them."""
    first = sorted(choice.scores, key=lambda score: score.value, reverse=rule == "gradmax")
    made = [score for score in first if score.change in choice.changes]
    left = [score for score in first if score.change not in choice.changes][:MOST_ROWS]
    form = "+.4f" if rule == "removal" else ".2e"

    def text(score: Score) -> str:
        error = "" if rule == "gradmax" else f" ± {score.error:{form.lstrip('+')}}"
        return f"{score.value:{form}}{error}"

    return [[str(score.change), text(score), "made" if score in made else ""] for score in (*made, *left)]


def _show_changed(
    log: RunLog, learner: Learner, architecture: Architecture, states: Sequence[EdgeState], step: int
) -> None:
    adapt, changed = learner.adapt, architecture.changed
    assert adapt is not None
    title = f"Architecture fixed after step {step:,}: {len(changed)} of {len(architecture.edges)} edges changed"
    if adapt.score != "theta" and not changed:
        log.say(f"{title}\n", style="bold")
        return
    if adapt.score != "theta":
        kinds = {spec.name: spec.kind for spec in edge_specs(learner.network.backbone)}
        log.show_table(title, ["edge", "was", "is"], [[name, kinds[name], choice] for name, choice in changed.items()])
        return
    shown = [state for state in states if state.choice != "original"]
    log.show_table(
        title + ("" if shown else "; the nearest to it:"),
        ["edge", "was", "is", "theta none", "identity", "same"],
        [
            [state.spec.name, state.spec.kind, state.choice, *(f"{value:+.3f}" for value in state.theta)]
            for state in shown or sorted(states, key=partial(_margin, adapt))[:3]
        ],
    )


def _show_costs(
    log: RunLog,
    monitor: Monitor,
    costs: tuple[tuple[int, int], tuple[int, int]],
    evaluations: tuple[Evaluation, Evaluation, Evaluation],
) -> None:
    before, after, recalibrated = evaluations
    rows = [
        ["parameters", *(f"{cost[0]:,}" for cost in costs)],
        ["multiply-adds", *(f"{cost[1]:,}" for cost in costs)],
    ]
    if before.rank_me is not None and after.rank_me is not None:
        rows.append(["RankMe", f"{before.rank_me:.1f}", f"{after.rank_me:.1f}"])
    if before.score and after.score:
        rows.append([f"{monitor.name} top-1", f"{before.score.top1:.2%}", f"{after.score.top1:.2%}"])
        if recalibrated.score:
            rows.append(["  BatchNorm recalibrated", "", f"{recalibrated.score.top1:.2%}"])
    log.show_table("The network before and after", ["", "before", "after"], rows)
    if recalibrated.score:
        log.say(RECALIBRATED.format(name=monitor.name))


def _margin(adapt: AdaptSection, state: EdgeState) -> float:
    """How far the edge is from another choice: what wins now, less what comes next."""
    none, identity, same = state.theta
    if state.spec.kind == "none":
        return (same if adapt.none_rule == "literal" else adapt.none_threshold) - identity
    return max(identity, same) - none if state.spec.kind == "identity" else same - max(none, identity)
