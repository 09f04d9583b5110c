"""The record of a run, read from its folder."""

import json
from pathlib import Path

import pytest

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.run_record import is_run, read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "a run"
    run.mkdir()
    save_recipe(load_recipe("quickstart"), run / "recipe.yaml")
    events = [{"event": "epoch", "step": 2, "loss": 1.5}, {"event": "fix", "step": 2}, {"event": "epoch", "step": 4}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return run


def test_events_status_and_score_are_those_of_the_files(folder: Path) -> None:
    (folder / "result.json").write_text('{"knn_top1": {"untrained": 0.2, "result": 0.75}}')
    (folder / "status.json").write_text('{"state": "finished"}')
    run = read_run(folder)
    assert run.name == "a run"
    assert [event["step"] for event in run.of("epoch")] == [2, 4]
    assert run.last("epoch") == {"event": "epoch", "step": 4}
    assert run.last("result") is None
    assert run.status == {"state": "finished"}
    assert run.score == 0.75


def test_a_run_that_goes_on_has_half_a_line_and_no_score(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epoch", "st')
    run = read_run(folder)
    assert len(run.events) == 3
    assert (run.score, run.status, run.result) == (None, {}, {})


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(UserError, match=r"is not the folder of a run: there is no recipe\.yaml"):
        read_run(tmp_path)


@pytest.mark.parametrize("line", ["{", "[1]", '{"event": 1, "step": 1}', '{"event": "epoch"}'])
def test_a_damaged_line_is_named(folder: Path, line: str) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match="line 4 is no event"):
        read_run(folder)


def test_a_recipe_of_another_release_is_named(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("name: a\n")
    with pytest.raises(UserError, match=r"recipe\.yaml is no recipe of this release"):
        read_run(folder)
