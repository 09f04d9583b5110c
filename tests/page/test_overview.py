"""The first section of a page: how a run ended, what it gave and cost, and its recipe."""

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_adapt.page.overview_section import find_warnings, how_it_ended, overview_section, short_number
from ssl_adapt.page.recipe_lines import recipe_lines
from ssl_adapt.page.run_costs import NetworkCost, first_cost, seconds_by_part
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.run_record import RunRecord, read_run


def write_run(folder: Path, *events: dict[str, Any], arguments: tuple[str, ...] = (), **files: Any) -> RunRecord:
    folder.mkdir()
    save_recipe(load_recipe(["recipe=quickstart", *arguments]), folder / "recipe.yaml")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return read_run(folder)


def facts_of(run: RunRecord) -> dict[str, str]:
    return dict(overview_section(run).values["facts"])


# --- how it ended -----------------------------------------------------------------------------------------


def test_a_finished_run_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    assert how_it_ended(write_run(tmp_path / "a", status={"state": "finished"})) == ("finished", "", None)


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path) -> None:
    status = {"state": "stopped", "reason": "after epoch 2, by run.stop_after_epochs"}
    run = write_run(tmp_path / "a b", status=status, arguments=("run.stop_after_epochs=2",))
    ending = how_it_ended(run)
    assert ending[:2] == ("stopped", "after epoch 2, by run.stop_after_epochs")
    folder = tmp_path / "a b"
    assert ending.command == (
        f"ssl-adapt pretrain 'recipe={folder}/recipe.yaml' run.resume=auto 'run.dir=\"{folder}\"' "
        "run.stop_after_epochs=null"
    )


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    ending = how_it_ended(write_run(tmp_path / "a", status={"state": "failed", "reason": "DivergedError: not finite"}))
    assert ending[:2] == ("failed", "DivergedError: not finite")
    assert ending.command is not None


def test_what_went_wrong_on_the_way_is_listed(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a",
        {"event": "start", "step": 0},
        {"event": "nonfinite", "step": 7, "indices": [1, 2]},
        {"event": "start", "step": 10, "time": "noon"},
        {"event": "processes", "step": 10, "change": "2 processes, before 1"},
        {"event": "extended", "step": 10, "epochs_before": 5, "epochs": 9},
        bad_images={"<b>.png": "no image format"},
    )
    assert find_warnings(run) == [
        "1 image could not be read and were replaced: <b>.png",
        "1 batch left out, as the loss was not finite: step 7",
        "resumed after step 10, noon",
        "step 10: 2 processes, before 1",
        "step 10: extended from 5 to 9 epochs",
    ]
    assert find_warnings(write_run(tmp_path / "b", {"event": "start", "step": 0})) == []


# --- what it gave and cost --------------------------------------------------------------------------------


def test_scores_have_their_intervals(tmp_path: Path) -> None:
    result = {"knn_top1": {"raw_pixels": 0.9, "untrained": 0.6, "result": 0.8}, "test_images": 500}
    section = overview_section(write_run(tmp_path / "a", result=result))
    first, second = section.values["tiles"]
    assert first == ("kNN top-1", "80.00%", "76.3% to 83.3% (95 %), 500 images")
    assert second == ("kNN top-1, untrained", "60.00%", "raw pixels 90.00%")
    [figure] = section.figures
    assert figure.table is not None
    assert figure.table.rows[-1] == ("after the run", "80.00%", "76.27%", "83.27%")


def test_a_run_of_before_without_a_number_of_test_images_has_no_intervals(tmp_path: Path) -> None:
    section = overview_section(write_run(tmp_path / "a", result={"knn_top1": {"result": 0.8}}))
    assert section.values["tiles"] == [("kNN top-1", "80.00%", "")]
    assert "Bars" not in section.figures[0].note


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (82_520, "82.5 k"), (3_295_232, "3.30 M"), (999, "999"), (4_100_000_000, "4.10 G")]
)
def test_numbers_have_three_digits(number: int, text: str) -> None:
    assert short_number(number) == text


def test_the_time_is_shared_out_as_in_the_steps_that_were_timed(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a",
        {"event": "step", "step": 5, "loss": 1, "ms": {"data": 1, "views": 4, "weights": 10, "theta": 5}},
        {"event": "step", "step": 10, "loss": 1, "ms": {"data": 0, "views": 5, "weights": 15}},
        {"event": "epoch", "step": 10, "seconds": 6.0, "evaluation_seconds": 1.0},
        {"event": "epoch", "step": 20, "seconds": 2.0, "evaluation_seconds": 2.5},
        {"event": "result", "step": 20, "seconds": 0.5},
    )
    parts = {"waiting for images": 0.2, "views": 1.8, "weights": 5.0, "theta": 1.0, "evaluation": 3.0}
    assert seconds_by_part(run) == pytest.approx(parts)
    assert [figure.name for figure in overview_section(run).figures] == ["time-by-part"]


def test_steps_that_were_not_timed_tell_nothing(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a", {"event": "step", "step": 5, "loss": 1}, {"event": "epoch", "step": 9, "seconds": 6}
    )
    assert seconds_by_part(run) == {}
    assert list(overview_section(run).figures) == []


def test_the_network_before_is_that_without_the_changes(tmp_path: Path) -> None:
    model_args = {"layers": [1], "width": 4}
    edges = {"layer1.0.conv1": "original", "layer1.0.conv2": "identity", "layer1.0.shortcut": "original"}
    architecture = {
        "version": 1, "model": "resnet20", "model_args": model_args, "shape_change": "pad", "edges": edges,
    }  # fmt: skip
    run = write_run(tmp_path / "a", architecture=architecture, arguments=("data.image_px=8",))
    assert first_cost(run) is None, "the number of classes is not known before the export"
    (tmp_path / "a/export").mkdir()
    (tmp_path / "a/export/config.json").write_text('{"num_classes": 0}')
    # the stem of 3 to 4 channels, two convolutions of 4 to 4, all of 3 x 3, and three BatchNorms of 2 x 4
    assert first_cost(run) == NetworkCost(108 + 2 * 144 + 3 * 8, 64 * (108 + 2 * 144))
    changed = {**architecture, "edges": dict.fromkeys(edges, "original")}
    (tmp_path / "a/architecture.json").write_text(json.dumps(changed))
    assert first_cost(run) is None, "nothing changed"


def test_the_network_before_is_that_of_the_start_where_it_was_recorded(tmp_path: Path) -> None:
    starts = [{"event": "start", "step": step, "parameters": 100 + step, "macs": 7} for step in (0, 9)]
    assert first_cost(write_run(tmp_path / "a", *starts)) == NetworkCost(100, 7)
    section = overview_section(write_run(tmp_path / "b", *starts, result={"parameters": 50, "macs": 7}))
    assert section.values["tiles"] == [
        ("parameters", "50", "100 before, -50.0%"), ("multiply-adds", "7", "as before"),
    ]  # fmt: skip


def test_facts_are_what_is_known_and_nothing_else(tmp_path: Path) -> None:
    bare = facts_of(write_run(tmp_path / "a"))
    assert {"Objective", "Images", "Network", "Training", "Seed"} <= set(bare)
    assert {"Code", "Hardware", "Where", "Labels", "Versions"} & set(bare) == set()
    start = {
        "event": "start", "step": 0, "time": "noon", "host": "here", "cpu": "Z80", "cores": 2, "gpus": ["H200"] * 2,
        "processes": 2, "device": "cuda", "precision": "bfloat16", "versions": {"ssl_adapt": "1", "torch": "2"},
        "commit": "abc-dirty",
    }  # fmt: skip
    known = facts_of(write_run(tmp_path / "b", start, result={"test_images": 500, "train_images": 1297, "classes": 10}))
    assert known["Hardware"] == "2 x H200; Z80, 2 cores; 2 processes; bfloat16 on cuda"
    assert known["Code"] == "ssl_adapt 1, commit abc-dirty"
    assert known["Versions"] == "torch 2"
    assert known["Where"] == "on here, begun noon"
    assert known["Images"] == "digits at 16 px, 1,297 to train on, 500 to test, 10 classes"


# --- the recipe -------------------------------------------------------------------------------------------


def test_values_other_than_the_packaged_ones_are_marked() -> None:
    values = load_recipe(
        ["recipe=quickstart", "train.lr=0.1", "model.args.cells=5", "seed=3", "run.dir=x", "run.trackers=[tensorboard]"]
    ).model_dump()
    lines, name = recipe_lines(values)
    assert name == "quickstart"
    marked = {line.text.strip(): line.packaged for line in lines if line.packaged is not None}
    assert marked == {"seed: 3": "0", "lr: 0.1": "0.002", "cells: 5": "4"}


def test_a_section_that_is_left_out_is_marked_as_a_whole() -> None:
    lines, _ = recipe_lines(load_recipe(["recipe=quickstart", "adapt=null"]).model_dump())
    [marked] = [line for line in lines if line.packaged is not None]
    assert marked.text == "adapt: null"
    assert marked.packaged is not None
    assert "sharing" in marked.packaged


def test_a_recipe_of_the_user_s_own_is_compared_with_nothing() -> None:
    lines, name = recipe_lines(load_recipe(["recipe=quickstart", "name=mine", "train.lr=0.1"]).model_dump())
    assert name is None
    assert [line for line in lines if line.packaged is not None] == []
