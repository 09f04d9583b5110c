"""The architecture on the page of a run: what is drawn, said and counted for runs of every kind."""

import re
from pathlib import Path

import pytest
from architecture_runs import CONV, NAMES, SKIP, recorded_run, theta_events, theta_run

from ssl_adapt.page.cells_section import cells_section
from ssl_adapt.page.page_section import PageSection
from ssl_adapt.page.write_page import render_page, write_figures
from ssl_adapt.report.run_architecture import RunArchitecture, read_architecture


@pytest.fixture(scope="module")
def by_theta(tmp_path_factory: pytest.TempPathFactory) -> tuple[PageSection, RunArchitecture]:
    run = theta_run(tmp_path_factory.mktemp("page") / "run")
    architecture = read_architecture(run)
    assert architecture is not None
    return cells_section(run), architecture


def rows_of(figure) -> dict[str, dict]:
    """The rows of the slider's chart, by edge."""
    return {row["edge"]: row for data in figure.spec["datasets"].values() for row in data if "values" in row}


def figure_named(section, name: str):
    return next(figure for figure in section.figures if figure.name == name)


def test_a_run_by_theta(by_theta) -> None:
    section, architecture = by_theta
    assert architecture.after is not None
    assert section.values["summary"].startswith(
        f"resnet20_nat has {len(NAMES)} edges, the places that may change; 2 of"
    )
    assert (
        f"Parameters {architecture.before.parameters:,} → {architecture.after.parameters:,}"
        in section.values["summary"]
    )
    names = [figure.name for figure in section.figures]
    assert names[-4:] == ["edges-theta", "theta-id", "theta-same", "margins"]
    assert len([name for name in names if name.startswith("cells-after")]) == 2
    slider = figure_named(section, "edges-theta")
    rows = rows_of(slider)
    assert list(rows) == NAMES
    assert rows[SKIP]["values"][-2:] == [0.4, None], "the rule is theta_id > 0; the last place is the fixed network"
    assert rows[CONV]["values"][-2] == 0.2, "none leads, with 0, theta_same of -0.2"
    assert rows[SKIP]["fixed"] == "none → identity"
    assert rows[CONV]["reds"] == "00011", "it leads at step 40, and is fixed"
    step, cell = slider.spec["params"]
    assert step["bind"]["max"] - step["bind"]["step"] == step["value"] == 40
    assert cell["bind"]["options"] == ["layer1.0", "layer2.0", "layer3.0"]
    assert set(section.files) == {"cells.dot", "cells.mmd"}


def test_savings_add_up_to_the_network_s(by_theta) -> None:
    section, architecture = by_theta
    assert architecture.after is not None
    table = section.values["tables"][-1]
    saved = architecture.before.macs - architecture.after.macs
    assert saved > 0
    assert table["totals"][-1][-1] == f"{saved:,}"
    assert any(row[:3] == (CONV, "conv_3x3", "none") for row in table["rows"])
    numbers = [int(row[-1].replace(",", "").replace("\u2212", "-")) for row in table["rows"] + table["totals"][:-1]]
    assert sum(numbers) == saved, "no row stands for two edges here"


def test_a_run_that_goes_on_shows_theta_so_far(tmp_path: Path) -> None:
    section = cells_section(recorded_run(tmp_path / "run", events=theta_events(10, 20)))
    assert "Nothing is fixed yet, at step 20." in section.values["summary"]
    assert not any(figure.name.startswith("cells-after") for figure in section.figures)
    assert rows_of(figure_named(section, "edges-theta"))[SKIP]["values"][-1] == 0.2
    assert section.values["tables"][-1]["title"] == "Each cell"
    begun = cells_section(recorded_run(tmp_path / "begun", events=[]))
    assert {figure.name for figure in begun.figures} == {"cells-before-0", "cells-before-1"}


def test_a_run_that_does_not_adapt_says_so(tmp_path: Path) -> None:
    section = cells_section(recorded_run(tmp_path / "run", "adapt=null", events=[]))
    assert section.values["summary"] == "This run trains resnet20_nat as it is: its architecture does not adapt."
    assert not section.figures
    assert "does not adapt" in render_page("a run", [section])


def test_a_network_that_is_not_known_here_is_named(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", "model.name=of_someone", "model.args={}", events=theta_events(10))
    assert cells_section(run).values["summary"].startswith("of_someone can't be built here, so that its cells are not")


def test_scores_are_shown_round_by_round(tmp_path: Path) -> None:
    events = [
        {
            "event": "choice", "step": 10 * number, "round": number, "rounds": 2, "score": "removal",
            "choices": {edge: "none"}, "passes": 3, "seconds": 1.0,
            "scores": {
                f"{edge} -> none": [-0.5, 0.1, 4], f"{SKIP} -> identity": [0.25, 0.1, 4],
                "layer3.0.edge_2_3 -> none": [None, None, 4],
            },
        }
        for number, edge in ((1, CONV), (2, "layer1.0.edge_2_3"))
    ]  # fmt: skip
    budget = ["adapt.score=removal", "adapt.budget_macs=0.5", "adapt.rounds=2"]
    section = cells_section(recorded_run(tmp_path / "run", *budget, events=events))
    assert not any(figure.name.startswith("theta") for figure in section.figures)
    rows = rows_of(figure_named(section, "edges-scores"))
    assert rows[CONV]["values"] == [-0.5, None]
    assert rows[CONV]["reds"] == "11"
    assert rows["layer1.0.edge_2_3"]["reds"] == "01"
    assert rows[SKIP]["reds"] == "00"
    measured = [row for data in figure_named(section, "measured-scores").spec["datasets"].values() for row in data]
    assert [(row["round"], row["state"]) for row in measured] == [(1, "made"), (1, "left"), (2, "made"), (2, "left")]


def test_a_run_that_grows_began_with_less(tmp_path: Path) -> None:
    opened = {"event": "choice", "step": 10, "round": 1, "rounds": 2, "score": "random", "choices": {CONV: "original"},
              "scores": {}, "passes": 0, "seconds": 1.0}  # fmt: skip
    done = {"event": "round", "step": 10, "changed": {"layer1.0.edge_2_3": "none"}, "parameters": 1, "macs": 1}
    run = recorded_run(
        tmp_path / "run", "adapt.score=random", "adapt.start_share=0.3", "adapt.rounds=2", events=[opened, done],
        changed={"layer1.0.edge_2_3": "none"},
    )  # fmt: skip
    architecture, section = read_architecture(run), cells_section(run)
    assert architecture is not None
    assert architecture.changed == {CONV: "original"}
    assert architecture.before.architecture.changed == {CONV: "none", "layer1.0.edge_2_3": "none"}
    assert "1 of them opened so far" in section.values["summary"]
    assert section.values["tables"][-1]["rows"][0][:3] == (CONV, "none", "conv_3x3")
    assert "multiply-adds added, each" in section.values["tables"][-1]["head"]


def test_blocks_in_a_row_need_no_nodes(tmp_path: Path) -> None:
    arguments = ["model.name=resnet20", "model.args={width: 4, layers: [2, 2]}", "adapt.granularity=branch"]
    theta = {name: [0.0, 0.1, 1.0] for name in ("layer1.0", "layer1.1", "layer2.1")}
    section = cells_section(
        recorded_run(tmp_path / "run", *arguments, events=[{"event": "theta", "step": 1, "theta": theta}])
    )
    slider = figure_named(section, "edges-theta")
    assert [param["name"] for param in slider.spec["params"]] == ["moment"], "there is no cell to choose"
    assert [figure.title for figure in section.figures if figure.name.startswith("cells")] == [
        "Before: layer1.0-1, layer2.1"
    ]


def test_all_of_it_is_drawn_into_files(by_theta, tmp_path: Path) -> None:
    section, _ = by_theta
    files = write_figures([section], tmp_path / "figures")
    assert len(files) == 2 * len(section.figures) + 2
    assert {"cells.dot", "cells.mmd", "edges-theta.svg", "margins.pdf"} <= {file.name for file in files}
    text = (tmp_path / "figures" / "edges-theta.svg").read_text()
    assert re.search(r">none\s+\+0.40<", text), "the drawing shows the last step before the fix"
    assert (tmp_path / "figures" / "margins.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("rule", ["literal", "threshold"])
def test_the_rule_of_none_edges_says_when_they_lead(tmp_path: Path, rule: str) -> None:
    section = cells_section(recorded_run(tmp_path / "run", f"adapt.none_rule={rule}", events=theta_events(10)))
    expected = {"literal": 0.1 - 1.0, "threshold": 0.1}[rule]
    assert rows_of(figure_named(section, "edges-theta"))[SKIP]["values"] == [pytest.approx(expected)]
