"""Supervised runs end to end on the embedded digits: stages, accuracy, resume to the bit, export with classifier."""

import json
from pathlib import Path

import pytest
import short_runs
import timm
import torch
from image_folders import write_noise
from scipy.stats import binomtest
from short_runs import assert_same_weights, events, load_checkpoint
from timm.layers.drop import DropPath

from ssl_adapt.objectives.supervised import ClassifierNetwork
from ssl_adapt.runs.checkpoint import Checkpoints

DARTS = ["model.name=darts", "model.args={channels: 4, cells: 3, auxiliary: true}", "objective.auxiliary_weight=0.4"]
PROXYLESS = ["model.name=proxyless_mobile_cifar", "model.args={width: 0.1}"]


def run(folder: Path, *arguments: str) -> Path | None:
    return short_runs.run(folder, *arguments, base=short_runs.SUPERVISED)


def test_a_supervised_run_tells_its_accuracy_after_every_epoch(tmp_path, capsys):
    export = run(tmp_path / "a")
    steps = 1297 // 128
    order = [(event["event"], event["step"]) for event in events(tmp_path / "a") if event["event"] != "theta"]
    assert order == [
        ("start", 0), ("untrained", 0), ("epoch", steps), ("evaluation", steps), ("before_fix", steps),
        ("after_fix", steps), ("recalibrated", steps), ("fix", steps), ("epoch", 2 * steps),
        ("evaluation", 2 * steps), ("epoch", 3 * steps), ("result", 3 * steps),
    ]  # fmt: skip
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    measured = [e["accuracy_top1"] for e in events(tmp_path / "a") if e["event"] in ("evaluation", "result")]
    assert result["accuracy_top1"]["result"] == measured[-1]
    assert result["best_epoch_by_test_images"]["accuracy_top1"] == max(measured)
    interval = binomtest(round(500 * measured[-1]), 500).proportion_ci(method="wilson")
    assert result["interval_95"] == pytest.approx([interval.low, interval.high], abs=1e-12)
    printed = capsys.readouterr().out
    assert "best of all epochs, chosen by the test images" in printed
    assert "on 500 test images" in printed
    classifier = timm.create_model(f"local-dir:{export}", pretrained=True).eval()
    features = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=0).eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(classifier(x), classifier.fc(features(x)))
    assert classifier(x).shape == (2, 10)


@pytest.mark.exactness
@pytest.mark.parametrize(
    "options",
    [
        ["data.train_images=512"],
        [
            *DARTS,
            "data.train_images=256",
            "data.batch_size=64",
            "train.drop_path=0.3",
            "objective.mixup_alpha=0.4",
            "views.cutout_px=4",
        ],
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, options):
    run(tmp_path / "whole", *options)
    assert run(tmp_path / "parts", *options, "run.stop_after_epochs=2") is None
    run(tmp_path / "parts", *options, "run.resume=auto")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_an_auxiliary_head_trains_and_is_not_exported(tmp_path):
    export = run(tmp_path / "a", *DARTS, "data.train_images=256")
    saved = load_checkpoint(tmp_path / "a").state["learner"]["network"]
    assert sum("auxiliary" in name for name in saved) > 5
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True)
    assert not any("auxiliary" in name for name in loaded.state_dict())


def test_drop_path_rises_linearly_over_the_run(tmp_path, monkeypatch):
    seen = []
    forward = ClassifierNetwork.forward

    def watch(network, images):
        if network.training:
            seen.append({m.drop_prob for m in network.modules() if isinstance(m, DropPath)})
        return forward(network, images)

    monkeypatch.setattr(ClassifierNetwork, "forward", watch)
    plain = [argument for argument in short_runs.SUPERVISED if not argument.startswith(("adapt.", "model.args"))]
    short_runs.run(tmp_path, *DARTS, "train.drop_path=0.4", "adapt=null", "train.max_steps=4", base=plain)
    assert seen[-4:] == [{0.4 * step / 4} for step in range(4)]
    assert all(rates == {0.0} for rates in seen[:-4])  # passes that estimate the memory


def test_any_timm_model_adapts_in_a_run(tmp_path):
    arguments = [
        "model.name=vit_tiny_patch16_224", "model.args={img_size: 8, patch_size: 4, embed_dim: 24, depth: 3}",
        "adapt.edges=blocks.*", "train.max_steps=6",
    ]  # fmt: skip
    export = run(tmp_path / "a", *arguments)
    architecture = json.loads((tmp_path / "a" / "architecture.json").read_text())
    assert set(architecture["edges"]) == {"blocks.0", "blocks.1", "blocks.2"}
    assert timm.create_model(f"local-dir:{export}", pretrained=True)(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adapt.edges=layer1.*"], "resnet20 declares its own edges; leave it out"),
        ([*PROXYLESS, "adapt.sharing=cell"], "needs cells that are alike"),
        (["model.name=no_such_model"], "model.name='no_such_model'"),
        (["train.drop_path=0.2"], "resnet20 has no drop-path; set it to null"),
        (["data.batch_size=2000"], "more than the 1297 training images"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_is_created(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "a", *arguments)
    assert not (tmp_path / "a").exists()


def test_images_without_labels_or_of_one_class_are_refused(tmp_path):
    write_noise(tmp_path / "flat", 130)
    with pytest.raises(ValueError, match=r"objective\.name=supervised needs labels"):
        run(tmp_path / "a", "data.name=folder", f"data.root={tmp_path / 'flat'}")
    write_noise(tmp_path / "one" / "train" / "cat", 130)
    with pytest.raises(ValueError, match="has one class alone"):
        run(tmp_path / "a", "data.name=folder", f"data.root={tmp_path / 'one'}")


def test_a_refused_architecture_may_be_accepted_when_the_run_goes_on(tmp_path):
    """theta kills a node; the run stops with a sentence after its checkpoint, and on_dead=allow goes on from there."""
    arguments = ["run.stop_after_epochs=1", "adapt.on_dead=error"]
    run(tmp_path / "a", *arguments)
    step, saved, _ = load_checkpoint(tmp_path / "a")
    for edge in ("layer2.1.conv2", "layer2.1.shortcut"):
        saved["learner"]["adaptation"]["theta"][edge] = torch.tensor([0.0, -1.0, -1.0])
    Checkpoints(tmp_path / "a" / "checkpoints", keep=1).save(step, saved)
    with pytest.raises(ValueError, match=r"1 dead node\(s\), which only none edges enter: layer2\.1:out"):
        run(tmp_path / "a", "adapt.on_dead=error", "run.resume=auto")
    assert run(tmp_path / "a", "adapt.on_dead=allow", "run.resume=auto") is not None
    architecture = json.loads((tmp_path / "a" / "architecture.json").read_text())
    assert architecture["edges"]["layer2.1.conv2"] == "none"
