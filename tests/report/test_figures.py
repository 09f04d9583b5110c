"""Figures: two architectures side by side, and theta over time, as files that a reader opens."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import timm
from script_calls import run_script
from short_runs import SUPERVISED, run

from ssl_adapt import Architecture, apply_architecture
from ssl_adapt.report.cell_chart import CHANGED
from ssl_adapt.report.comparison import draw_comparison
from ssl_adapt.report.theta_plot import draw_theta


def cell_network(**choices):
    model = timm.create_model("resnet20_nat", channels=4, cells=3, num_classes=2)
    edges = {spec.name: choices.get(spec.place, "original") for spec in model.edge_specs()}
    apply_architecture(model, Architecture("resnet20_nat", {}, edges))
    return model


def words_of(path: Path) -> list[str]:
    return [element.text for element in ElementTree.parse(path).iter() if element.text and element.text.strip()]


def test_what_differs_is_red_and_what_both_have_is_not(tmp_path):
    paths = [tmp_path / "a.svg", tmp_path / "a.png"]
    before, after = cell_network(edge_0_3="identity"), cell_network(edge_0_3="identity", edge_3_4="none")
    assert draw_comparison(before, after, paths) == 3
    words = words_of(paths[0])
    assert "conv_3x3 → none" in words
    assert "none → identity" not in words, "both have it"
    assert any(word.startswith("before, ") for word in words)
    assert any(word.startswith("after, ") for word in words)
    assert CHANGED in paths[0].read_text()
    assert paths[1].stat().st_size > 5000
    assert draw_comparison(before, before, paths[:1]) == 0
    assert CHANGED not in paths[0].read_text()


def test_it_is_the_cells_after_that_are_marked(tmp_path):
    before = timm.create_model("resnet20_nat", channels=4, cells=6, num_classes=2)
    name = next(spec.name for spec in before.edge_specs() if spec.cell_type == "normal")
    edges = {spec.name: "identity" if spec.name == name else "original" for spec in before.edge_specs()}
    after = timm.create_model("resnet20_nat", channels=4, cells=6, num_classes=2)
    apply_architecture(after, Architecture("resnet20_nat", {}, edges))
    draw_comparison(before, after, [tmp_path / "a.svg"])
    cells = len({spec.cell for spec in before.edge_specs() if spec.cell_type == "normal"})
    assert cells == 4
    assert f"before, normal, {cells} cells" in words_of(tmp_path / "a.svg"), "they are all alike before"
    assert "after, normal, 1 cell" in words_of(tmp_path / "a.svg")


def test_a_genotype_of_other_operations_is_compared_too(tmp_path):
    """NAT's cells are another genotype, without any choice of ours."""
    nat = timm.create_model("resnet20_nat", genotype="NAT_ResBlock", channels=4, cells=3, num_classes=2)
    plain = cell_network()
    assert draw_comparison(plain, nat, [tmp_path / "a.svg"]) == 6
    assert "none → identity" in words_of(tmp_path / "a.svg")


def test_networks_that_cannot_be_compared(tmp_path):
    with pytest.raises(ValueError, match="must have the same edges"):
        draw_comparison(cell_network(), timm.create_model("resnet20"), [tmp_path / "a.svg"])
    with pytest.raises(ValueError, match="is none before and conv_3x3 after: an adapted edge is"):
        draw_comparison(cell_network(edge_2_3="none"), cell_network(), [tmp_path / "a.svg"])


def test_theta_over_time(tmp_path):
    run(tmp_path / "run", "adapt.theta_lr=0.3", base=SUPERVISED)
    output = run_script(f"theta={tmp_path / 'run'}", f"plot={tmp_path}", script="report.py")
    assert output.code == 0, output.err
    assert output.out.startswith("theta at 10 points in time")
    text = (tmp_path / "theta.svg").read_text()
    words = set(words_of(tmp_path / "theta.svg"))
    assert {"theta_id", "theta_same", "step", "changed", "the fix", "stayed"} <= words
    assert "threshold" not in words, "the rule is literal"
    draw_theta(tmp_path / "run", [tmp_path / "again.svg"])
    assert (tmp_path / "again.svg").read_text() == text
    run(tmp_path / "cells", "adapt.none_rule=threshold", "adapt.none_threshold=9", "model.name=resnet20_nat",
        "model.args={channels: 4, cells: 3}", base=SUPERVISED)  # fmt: skip
    draw_theta(tmp_path / "cells", [tmp_path / "cells.svg"])
    assert {"stayed none", "threshold"} <= set(words_of(tmp_path / "cells.svg"))
    run(tmp_path / "no_none", "adapt.none_rule=threshold", "train.max_steps=4", base=SUPERVISED)
    draw_theta(tmp_path / "no_none", [tmp_path / "no_none.svg"])
    assert "threshold" not in words_of(tmp_path / "no_none.svg"), "there are no none edges"
    run(
        tmp_path / "plain", "adapt=null", "train.max_steps=2", base=[a for a in SUPERVISED if not a.startswith("adapt")]
    )
    with pytest.raises(ValueError, match="the architecture of this run did not adapt"):
        draw_theta(tmp_path / "plain", [tmp_path / "b.svg"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["before=resnet20", "after=resnet20"], "drawing is missing: add drawing=VALUE"),
        (["theta=nowhere", "plot=a.svg"], "theta=nowhere: there is no metrics.jsonl in it; name the folder of a run"),
        (["before=resnet2O", "after=resnet20", "drawing=a.svg"], "resnet2O"),
    ],
)
def test_errors_of_the_script(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run_script(*arguments, script="report.py")
    assert output.code == 2
    assert message in output.err
