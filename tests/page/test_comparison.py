"""The page of several runs: how runs are grouped, what is compared, and what is said where nothing can be."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_adapt.page.comparison_section import comparison_sections, group_runs
from ssl_adapt.page.write_page import write_report
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.run_record import RunRecord, read_run

WriteRun = Callable[..., RunRecord]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    def write(name: str, seed: int, score: float | None, **values: object) -> RunRecord:
        folder = tmp_path / name
        folder.mkdir()
        recipe = load_recipe("quickstart", {"seed": seed, **{key.replace("__", "."): v for key, v in values.items()}})
        save_recipe(recipe, folder / "recipe.yaml")
        losses = [{"event": "epoch", "step": step, "loss": 3 / step, "seconds": 1.0} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in losses))
        if score is not None:
            (folder / "result.json").write_text(json.dumps({"knn_top1": {"result": score}, "protocol": "kNN"}))
        return read_run(folder)

    return write


def two_groups(write_run: WriteRun) -> list[RunRecord]:
    scores = ((0, 0.50, 0.53), (1, 0.52, 0.54), (2, 0.51, 0.54))
    plain = [write_run(f"plain_seed{seed}", seed, before, adapt=None) for seed, before, _ in scores]
    return plain + [write_run(f"adapted-seed={seed}", seed, after) for seed, _, after in scores]


def test_runs_whose_recipes_differ_in_the_seed_alone_are_a_group(write_run: WriteRun) -> None:
    groups = group_runs(two_groups(write_run))
    assert {name: [run.recipe.seed for run in runs] for name, runs in groups.items()} == {
        "plain": [0, 1, 2], "adapted": [0, 1, 2],
    }  # fmt: skip


def test_groups_of_one_name_are_told_apart(write_run: WriteRun) -> None:
    runs = [write_run("a_seed1", 1, 0.5), write_run("a_seed2", 2, 0.5, train__lr=0.5)]
    assert list(group_runs(runs)) == ["a", "a (2)"]


def test_differences_are_paired_by_seed(write_run: WriteRun) -> None:
    section, curves = comparison_sections(group_runs(two_groups(write_run)))
    (row,) = section.values["differences"]
    assert row[:2] == ("adapted - plain", "+2.67")
    assert row[-1] == "3"
    assert section.values["groups"][0][:3] == ("plain", "3", "51.00 ± 1.00")
    assert [figure.name for figure in section.figures] == ["scores", "differences"]
    assert [figure.name for figure in curves.figures] == ["group-losses"]


def test_a_run_that_is_not_finished_is_shown_and_not_compared(write_run: WriteRun) -> None:
    runs = [write_run("plain", 0, 0.5, adapt=None), write_run("adapted", 0, None)]
    section = comparison_sections(group_runs(runs))[0]
    assert "has no score yet" in section.values["refusal"]
    assert section.values["differences"] == []
    assert section.values["groups"][1][2] == "none yet"


def test_names_are_shown_as_text(write_run: WriteRun, tmp_path: Path) -> None:
    write_run('<script>alert("1")<', 0, 0.5)
    write_run("b", 0, 0.6, adapt=None)
    page = tmp_path / "page.html"
    (line,) = write_report(f"{tmp_path}/*", str(page))
    assert line.startswith(f"{page}: ")
    html = page.read_text()
    assert "&lt;script&gt;alert" in html
    assert not re.search(r"<script>alert", html)
    assert html.count("</script>") == 4  # of the charts, the configuration, Vega and the page


def test_one_group_has_means_and_no_differences(write_run: WriteRun) -> None:
    runs = [write_run(f"a_seed{seed}", seed, 0.5 + seed / 10) for seed in (0, 1)]
    section = comparison_sections(group_runs(runs))[0]
    assert (section.values["refusal"], section.values["differences"]) == ("", [])
    assert section.values["groups"][0][2] == "55.00 ± 7.07"
