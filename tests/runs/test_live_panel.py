"""The panel of a run on a terminal: what it says, that it fits, and what stands in its place in a file."""

import io
from pathlib import Path

import pytest
from accelerate import Accelerator
from rich.console import Console

from ssl_adapt.runs import log as log_module
from ssl_adapt.runs.live_panel import LivePanel
from ssl_adapt.runs.log import RunLog
from ssl_adapt.training.schedules import plan_stages

STAGES = plan_stages(steps_per_epoch=1000, epochs=15, adapt_epochs=1, anneal_epochs=0, max_steps=None)


def shown(panel: LivePanel, width: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    panel._console = console
    with console.capture() as capture:
        console.print(panel.render())
    return capture.get().splitlines()


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> LivePanel:
    """In the third epoch, whose steps take a tenth of a second."""
    clock = iter(range(1000))
    monkeypatch.setattr("ssl_adapt.runs.live_panel.time.perf_counter", lambda: 0.1 * next(clock))
    panel = LivePanel(Console())
    panel.start_epoch(STAGES, 2, 2000)
    for _ in range(103):
        panel.advance(4.5, 256)
    return panel


@pytest.mark.parametrize("width", [80, 160])
def test_it_says_where_the_run_is_and_fits(panel: LivePanel, width: int) -> None:
    panel.scores, panel.score_name = [0.01 * index for index in range(40)], "kNN"
    lines = shown(panel, width)
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert [lines[0].split()[index] for index in (0, 1, 3)] == ["epoch", "3/15", "103/1,000"]
    assert lines[0].rstrip().endswith("1 min 30 s left")
    assert lines[1].split()[0] == "run"
    assert "2,103/15,000" in lines[1]
    assert lines[1].rstrip().endswith("21 min 30 s left")
    assert lines[2].startswith("network  loss 4.5000  2,560 images/s  kNN 39.00% ▁")
    assert lines[2].rstrip().endswith("█")
    assert sum(character in "▁▂▃▄▅▆▇█" for character in lines[2]) == (12 if width == 80 else 24)


def test_other_work_is_a_line_until_the_next_step(panel: LivePanel) -> None:
    advance = panel.begin("features of the training images", 200)
    advance(50)
    advance(10)
    line = shown(panel, 80)[3]
    assert line.startswith("features of the training images ━")
    assert line.rstrip().endswith("30%")
    panel.begin(
        "a name that is much longer than all of the line, which is no reason for a second line of it at all", None
    )
    assert len(shown(panel, 80)) == 4
    before = panel._step_sec.value
    panel.advance(4.5, 256)
    assert len(shown(panel, 80)) == 3
    assert panel._step_sec.value == before, "what came between is no step's time"


def test_a_loss_that_was_left_out_is_not_shown(panel: LivePanel) -> None:
    panel.advance(None, 256)
    assert "loss 4.5000" in shown(panel, 80)[2]


def test_where_there_is_no_terminal_long_epochs_get_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunLog(tmp_path, Accelerator(cpu=True), "a", {})
    with log:
        log.start_epoch(STAGES, 0, 0)
        log.advance(4.5, 256)
        assert capsys.readouterr().out == ""
        monkeypatch.setattr(log_module, "HEARTBEAT_SEC", 0)
        log.advance(4.5, 256)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("  epoch 1/15, step 2 of 15,000, ")
    assert "architecture  loss 4.5000" in line


def test_scores_of_before_a_stop_are_shown(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Accelerator(cpu=True), "a", {})
    log.record("untrained", step=0, knn_top1=0.25)
    log.record("recalibrated", step=0, knn_top1=0.9)
    again = RunLog(tmp_path, log.accelerator, "a", {}, log.state_dict())
    assert again.panel.scores == [0.25]
    assert again.panel.score_name == "kNN"
