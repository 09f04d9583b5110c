"""The curves of a run: what was logged, its stages, and the window that smooths them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ssl_adapt.page.curve_chart import MOST_POINTS, Curve, Point, RunAxis, Stage, draw_curve
from ssl_adapt.page.curves_section import collapsed_nt_xent, curves_section, run_axis
from ssl_adapt.page.page_section import PageFigure
from ssl_adapt.page.write_page import write_figures
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.run_record import RunRecord, read_run


def write_run(folder: Path, *events: dict[str, Any], arguments: tuple[str, ...] = ()) -> RunRecord:
    folder.mkdir()
    save_recipe(load_recipe(["recipe=quickstart", *arguments]), folder / "recipe.yaml")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return read_run(folder)


def figures_of(run: RunRecord) -> dict[str, PageFigure]:
    section = curves_section(run)
    return {figure.name: figure for figure in section.figures} if section else {}


STEPS = [{"event": "step", "step": n, "loss": 5 - n / 10, "lr": 0.1, "gradient_norm": 1.0} for n in range(1, 21)]
EPOCHS = [{"event": "epoch", "step": 10 * n, "loss": 5 - n, "images_per_sec": 100.0, "seconds": 1} for n in (1, 2)]


def test_what_was_not_measured_is_not_shown(tmp_path: Path) -> None:
    assert set(figures_of(write_run(tmp_path / "a", *EPOCHS))) == {"loss", "images-per-second"}
    assert set(figures_of(write_run(tmp_path / "b", *STEPS))) == {"loss", "learning-rates", "gradient-norm"}
    assert curves_section(write_run(tmp_path / "c", EPOCHS[0])) is None, "one point is no curve"


def test_theta_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    plain = figures_of(write_run(tmp_path / "a", *STEPS))["learning-rates"]
    both = figures_of(write_run(tmp_path / "b", *({**step, "theta_lr": 1e-3} for step in STEPS)))["learning-rates"]
    assert (plain.title, both.title) == ("Learning rate", "Learning rates")
    assert both.table is not None
    assert both.table.columns == ("step", "weights", "theta")
    assert both.table.rows[0] == ("1", "0.1", "0.001")


def test_the_probe_stands_beside_the_knn_score(tmp_path: Path) -> None:
    scores = [
        {"event": "raw_pixels", "step": 0, "knn_top1": 0.9},
        {"event": "untrained", "step": 0, "knn_top1": 0.5},
        {"event": "result", "step": 20, "knn_top1": 0.8},
    ]
    probed = [{**epoch, "probe_top1": 0.3, "probe_train_top1": 0.2} for epoch in EPOCHS]
    figure = figures_of(write_run(tmp_path / "a", *scores, *probed))["scores"]
    assert figure.table is not None
    assert figure.table.columns == ("step", "kNN top-1", "probe, test", "probe, training")
    assert figure.table.rows == [
        ("0", "50.00%", "", ""), ("10", "", "30.00%", "20.00%"), ("20", "80.00%", "30.00%", "20.00%"),
    ]  # fmt: skip
    assert "raw pixels" in json.dumps(figure.spec)
    assert figure.description.endswith("lowest 20.00% after step 10, highest 20.00% after step 10.")


@pytest.mark.parametrize(
    ("arguments", "events", "stages"),
    [
        (("adapt=null",), [], []),
        ((), [], [("architecture", 0, 20)]),
        ((), [{"event": "fix", "step": 10}], [("architecture", 0, 5), ("anneal", 5, 10), ("network", 10, 20)]),
        (
            ("adapt.mode=hard", "adapt.anneal_epochs=0"), [{"event": "fix", "step": 20}], [("architecture", 0, 20)],
        ),
        (
            ("adapt.mode=hard", "adapt.anneal_epochs=0"),
            [{"event": "round", "step": 4}, {"event": "fix", "step": 8}],
            [("architecture", 0, 4), ("architecture", 4, 8), ("network", 8, 20)],
        ),
    ],
)  # fmt: skip
def test_stages_end_where_the_run_fixed(
    tmp_path: Path, arguments: tuple[str, ...], events: list[dict[str, Any]], stages: list[tuple[str, int, int]]
) -> None:
    axis = run_axis(write_run(tmp_path / "a", *events, *EPOCHS, arguments=arguments))
    assert list(axis.stages) == stages
    assert axis.last_step == 20
    assert list(axis.fixes) == [event["step"] for event in events]


def test_a_long_run_has_as_many_points_as_a_screen_has_room_for() -> None:
    points = [Point(step, float(step % 2), "loss") for step in range(10 * MOST_POINTS)]
    figure = draw_curve(Curve("loss", "Loss", "It.", points, is_smoothed=True), RunAxis(len(points)))
    values = figure.spec["data"]["values"]
    assert len(values) == MOST_POINTS
    assert {value["value"] for value in values} == {0.5}, "means of ten"
    assert values[-1]["step"] == points[-1].step
    assert figure.table is None


def test_the_window_is_a_share_of_the_points() -> None:
    points = [Point(step, 1.0, "loss") for step in range(1, 101)]
    smooth = draw_curve(Curve("loss", "Loss", "It.", points, is_smoothed=True), RunAxis(100))
    assert smooth.spec["transform"][0]["frame"] == [
        {"signal": "-round(smoothing / 200 * 100)"}, {"signal": "round(smoothing / 200 * 100)"},
    ]  # fmt: skip
    assert "smoothing" in {parameter["name"] for parameter in smooth.spec["params"]}
    plain = draw_curve(Curve("loss", "Loss", "It.", points), RunAxis(100))
    assert "transform" not in plain.spec


def test_nt_xent_of_a_collapsed_network_is_a_line_of_the_loss(tmp_path: Path) -> None:
    import torch

    from ssl_adapt import nt_xent

    one_point = torch.ones(64, 8)
    assert nt_xent(one_point, one_point, temperature=0.2).item() == pytest.approx(collapsed_nt_xent(64))
    text = json.dumps(figures_of(write_run(tmp_path / "a", *STEPS))["loss"].spec)
    assert f"{math.log(255):.2f}" in text


def test_a_curve_is_drawn_into_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"event": "fix", "step": 4}, *STEPS)
    section = curves_section(run)
    assert section is not None
    names = {path.name for path in write_figures([section], tmp_path / "files")}
    assert names == {f"{name}.{kind}" for name in figures_of(run) for kind in ("svg", "pdf")}
    svg = (tmp_path / "files/loss.svg").read_text()
    assert svg.count("mark-line") >= 2, "raw and smooth"
    assert "collapsed: log(2N - 1) = 5.54" in svg
    assert (tmp_path / "files/loss.pdf").read_bytes().startswith(b"%PDF")


def test_the_axis_names_its_stages() -> None:
    figure = draw_curve(
        Curve("loss", "Loss", "It.", [Point(1, 1.0, "loss"), Point(9, 2.0, "loss")]),
        RunAxis(10, [Stage("architecture", 0, 5), Stage("network", 5, 10)], [5]),
    )
    assert [value["name"] for value in figure.spec["layer"][0]["data"]["values"]] == ["architecture", "network"]
