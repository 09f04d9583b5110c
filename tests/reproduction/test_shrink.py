"""Table 5: its arms meet their budgets, and its rows are kept."""

import json

import pytest
import timm
import torch
from image_folders import write_noise

from reproduction import shrink_study, shrink_summary
from reproduction.shrink_command import run
from reproduction.shrink_options import ARMS, ShrinkOptions
from reproduction.shrink_summary import to_markdown
from reproduction.shrink_times import batch_seconds, create_cut_network
from ssl_adapt.adaptation.budget import measure_cost
from ssl_adapt.errors import UserError


def rows_of(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "arms",
    [("original", "removal", "random", "scratch_found"), pytest.param(ARMS, marks=pytest.mark.slow)],
    ids=len,
)
def test_every_arm_meets_its_budget_and_is_run_once(arms, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shrink_study, "SCORE_BATCHES", 2)
    monkeypatch.setattr(shrink_summary, "time_shares", lambda rows: [row["share"] for row in rows])
    for split, count in (("train", 60), ("test", 10)):
        for index in range(2):
            write_noise(tmp_path / "images" / split / str(index), count)
    arguments = [
        f"root={tmp_path / 'images'}", "images=100", "seeds=1",
        f"arms={','.join(arms)}", "budgets=0.5", "draws=2", "start_epochs=1", "tail_epochs=2",
        f"folder={tmp_path / 'study'}", f"results={tmp_path}",
    ]  # fmt: skip
    run(arguments)
    rows = rows_of(tmp_path / "study")
    assert sorted((row["arm"], row["draw"]) for row in rows) == sorted([(arm, 0) for arm in arms] + [("random", 1)])
    for row in rows:
        assert row["share"] <= row["budget"]
        assert bool(row["cut"]) == (row["arm"] != "original")
    cuts = {row["arm"]: row["cut"] for row in rows}
    assert cuts["scratch_found"] == cuts["removal"]
    assert {row["share"] for row in rows if row["arm"] == "original"} == {1.0}
    run([*arguments])
    assert rows_of(tmp_path / "study") == rows
    assert "removal, one-shot" in (tmp_path / "table_5_resnet.md").read_text()
    assert (tmp_path / "figures/table_5_resnet.svg").stat().st_size > 5_000
    capsys.readouterr()


def test_wrong_arms_are_refused():
    with pytest.raises(UserError, match="there is no 'removed'; there are original, removal"):
        run(["root=x", "arms=removed"])
    with pytest.raises(UserError, match="shares between 0 and 1"):
        run(["root=x", "budgets=2"])


def test_random_is_the_mean_of_its_draws():
    common = {"network": "resnet", "budget": 0.5}
    rows = [
        {**common, "seed": seed, "arm": arm, "draw": draw, "accuracy": value}
        for seed, arm, draw, value in [
            (1, "removal", 0, 60.0), (1, "random", 0, 50.0), (1, "random", 1, 54.0),
            (2, "removal", 0, 61.0), (2, "random", 0, 55.0), (2, "random", 1, 57.0),
        ]
    ]  # fmt: skip
    text = to_markdown(rows)
    assert "| random | 54.00 ± 2.83 |" in text
    assert "| removal - random | 0.5 | +6.50 ± 19.06 | 0.144 | 0.144 | 2 |" in text


def test_times_are_of_the_network_that_was_cut():
    images, cut = torch.zeros(1, 3, 16, 16), ("layer1.0",)
    whole, smaller = (measure_cost(create_cut_network("resnet", c), images, "macs") for c in ([], cut))
    assert smaller < whole
    seconds = batch_seconds("resnet", [(), cut, ()], images=1, rounds=1)
    assert [*seconds] == [(), cut]
    assert all(value > 0 for value in seconds.values())


def test_a_trained_start_begins_with_the_weights_of_a_file(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for index in range(2):
            write_noise(tmp_path / "images" / split / str(index), 50)
    given = timm.create_model("resnet20", num_classes=3, layers=[4, 4, 4], width=8)
    torch.save(given.state_dict(), tmp_path / "weights.pt")
    options = ShrinkOptions(root=str(tmp_path / "images"), images=100, weights=str(tmp_path / "weights.pt"))
    monkeypatch.setattr(shrink_study.Study, "train", lambda *args, **kwargs: None)
    started = shrink_study.Study("resnet", 1, options, tmp_path, "").start().network.backbone.state_dict()
    other = {name for name, value in given.state_dict().items() if not torch.equal(value, started[name])}
    assert {name.rpartition(".")[0] for name in other} == {"fc"}
