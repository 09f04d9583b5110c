"""Runs whose changes the squared Taylor score chooses: their cost, their resume, and what they leave alone."""

from pathlib import Path

import short_runs
from short_runs import TINY, assert_same_weights, events

BASE = [
    *TINY[:2], "data.batch_size=64", "data.train_images=192", "knn.every_epochs=0", "knn.k=20", "adapt.score=taylor",
    "adapt.score_batches=2", "adapt.budget_macs=0.4",
]  # fmt: skip


def run(folder: Path, *more: str) -> Path | None:
    return short_runs.run(folder, *more, base=BASE)


def test_rounds_by_taylor_resume_to_the_bit_and_say_what_they_cost(tmp_path, capsys):
    """From between two rounds; with two parts a batch, whose gradients add up."""
    more = [
        "model.args={width: 4, layers: [3, 2]}", "adapt.granularity=branch", "adapt.rounds=3", "train.accumulate=2",
        "train.epochs=5", "adapt.epochs=2", "adapt.mode=anneal", "adapt.anneal_epochs=2",
    ]  # fmt: skip
    run(tmp_path / "whole", *more)
    assert "Chosen after step 6 by taylor, round 2 of 3, 2 passes forward and back in" in capsys.readouterr().out
    assert run(tmp_path / "parts", *more, "run.stop_after_epochs=2") is None
    run(tmp_path / "parts", *more, "run.resume=auto")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    choices = events(tmp_path / "parts", "choice")
    assert [choice["choices"] for choice in choices] == [c["choices"] for c in events(tmp_path / "whole", "choice")]
    assert [choice["passes"] for choice in choices] == [2, 2, 2]
    assert all(value > 0 for choice in choices for value, _, _ in choice["scores"].values())


def test_edges_without_weights_stay_as_they_are(tmp_path):
    run(
        tmp_path / "a", "model.name=resnet20_bottleneck", "model.args={width: 4, layers: [1, 2]}",
        "adapt.budget_macs=0.8", "adapt.shape_change=forbid",
    )  # fmt: skip
    [choice] = events(tmp_path / "a", "choice")
    names = {change.partition(" -> ")[0].rpartition(".")[2] for change in choice["scores"]}
    assert names == {"conv1", "conv2"}, "no null, no shortcut, and none that changes its shape"
    assert choice["choices"]
