"""The online probe learns, and leaves the run as it is without it, resumed or not."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from image_folders import write_images
from objective_rows import batch_of, create
from recipe_files import problems_of
from short_runs import assert_same_weights, events, load_checkpoint, run
from torch import Tensor

from ssl_adapt.data import load_image_splits
from ssl_adapt.objectives import Simclr
from ssl_adapt.runs.stop_signal import InterruptedRunError
from ssl_adapt.training.online_probe import create_online_probe

PROBED = ["run.online_probe=true", "train.epochs=3", "adapt.epochs=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, *PROBED)
    return folder


def test_a_run_with_a_probe_is_the_run_without_one(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "without", *PROBED[1:])
    assert_same_weights(whole, tmp_path / "without")
    first, second = (load_checkpoint(folder).state for folder in (whole, tmp_path / "without"))
    assert torch.equal(first["random_states"][0]["cpu"], second["random_states"][0]["cpu"])
    assert first["learner"]["online_probe"]["head"]["weight"].abs().max() > 0
    assert second["learner"]["online_probe"] is None
    assert [event["loss"] for event in events(whole, "epoch")] == [
        event["loss"] for event in events(tmp_path / "without", "epoch")
    ]
    epochs = events(whole, "epoch")
    assert epochs[-1]["probe_train_top1"] > epochs[0]["probe_train_top1"] > 0.08
    assert epochs[-1]["probe_train_loss"] < epochs[0]["probe_train_loss"] < 2.4
    assert 0.15 < epochs[-1]["probe_top1"] < 1
    assert "probe_top1" not in epochs[0]


def test_a_resumed_run_has_the_probe_of_one_that_was_never_stopped(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch, whose images so far must not be forgotten."""
    loss, calls = Simclr.loss, []

    def signals_once(objective: Simclr, outputs: Sequence[Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 26:  # ten steps of the first epoch have two passes; then in the sixth step of the second
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(objective, outputs)

    monkeypatch.setattr(Simclr, "loss", signals_once)
    with pytest.raises(InterruptedRunError, match="step 16 was saved"):
        run(tmp_path / "parts", *PROBED)
    saved = load_checkpoint(tmp_path / "parts").state["learner"]["online_probe"]
    assert saved["sums"][2] == 6 * 128
    run(tmp_path / "parts", *PROBED, "run.resume=auto")
    first, second = (load_checkpoint(folder).state["learner"]["online_probe"] for folder in (whole, tmp_path / "parts"))
    assert torch.equal(first["head"]["weight"], second["head"]["weight"])
    ends = [[event[key] for key in event if "probe" in key] for folder in (whole, tmp_path / "parts")
            for event in events(folder, "epoch")]  # fmt: skip
    assert ends[:3] == ends[3:]


def test_a_run_that_goes_on_may_begin_its_probe(tmp_path: Path) -> None:
    run(tmp_path / "a", *PROBED[1:], "run.stop_after_epochs=1")
    run(tmp_path / "a", *PROBED, "run.resume=auto", "run.stop_after_epochs=2")
    assert ["probe_train_top1" in epoch for epoch in events(tmp_path / "a", "epoch")] == [False, True]


def test_the_probe_is_of_what_is_evaluated() -> None:
    """Where the weights are averaged, their average is: as of kNN and of what is exported."""
    digits = load_image_splits("digits", image_px=8).train
    learner = create("simclr", digits, "train.ema_decay=0.9")
    batch = batch_of(digits)
    views = learner.views(batch)
    for _ in range(2):
        learner.train_weights(views, 0.1, 0.5)
    assert learner.average is not None
    probes = [create_online_probe(learner.network.backbone, digits, torch.device("cpu")) for _ in range(3)]
    learner.online_probe = probes[0]
    learner.train_probe(batch, views)
    for probe, backbone in ((probes[1], learner.average.backbone), (probes[2], learner.network.backbone)):
        probe.train(backbone, views[0], batch.labels)
    own, averaged, current = (probe.sums for probe in probes)
    assert torch.equal(probes[0].head.weight, probes[1].head.weight)
    assert torch.equal(own, averaged)
    assert not torch.equal(probes[0].head.weight, probes[2].head.weight)
    assert own[2] == current[2] == len(views[0])


def test_what_cannot_have_a_probe(tmp_path: Path) -> None:
    assert problems_of("recipe=supervised_resnet20", "run.online_probe=true") == [
        "run.online_probe=true: supervised has a classifier of its own: leave it out"
    ]
    write_images(tmp_path / "images", *(f"{index}.png" for index in range(6)))
    folder = ["data.name=folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4"]
    with pytest.raises(ValueError, match=r"run\.online_probe=true needs labels to learn from, and the images of"):
        run(tmp_path / "a", *folder, "run.online_probe=true")
    assert not (tmp_path / "a").exists()
