"""What science asks for beside a result: given choices, recalibrated BatchNorm, subsets, short stages."""

import contextlib
import copy
import json
import time
from types import SimpleNamespace

import pytest
import timm
import torch
from accelerate import Accelerator
from short_runs import SUPERVISED, TINY, assert_same_weights, events, run
from small_networks import small
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_adapt import Adaptation, Architecture, apply_architecture, load_recipe
from ssl_adapt.adaptation.edge import Pad
from ssl_adapt.backbones.cell_operations import create_factorized_reduce
from ssl_adapt.data import load_image_splits
from ssl_adapt.evaluation import monitor
from ssl_adapt.evaluation.features import normalise
from ssl_adapt.evaluation.recalibration import recalibrated
from ssl_adapt.runs.log import RunLog
from ssl_adapt.training.schedules import plan_stages


def test_given_choices_win_over_theta():
    model = small()
    names = [spec.name for spec in Adaptation(copy.deepcopy(model)).edges if spec.kind == "operation"]
    adaptation = Adaptation(model, choices={names[0]: "identity", names[1]: "none"}, on_dead="allow")
    with torch.no_grad():
        adaptation.theta[names[2]].copy_(torch.tensor([9.0, 0.0, 0.0]))
    assert adaptation.fix().changed == {names[0]: "identity", names[1]: "none"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choices": {"layer9": "none"}}, "the network has no edge 'layer9'"),
        (
            {"choices": {"layer1.0.conv1": "add"}},
            "'add' is no candidate of edge 'layer1.0.conv1': original, identity, none",
        ),
        ({"choices": {}, "sharing": "cell"}, "edges share theirs: use 'full'"),
    ],
)
def test_wrong_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adaptation(small(), **arguments)


def test_choices_of_a_recipe(tmp_path):
    edge = "layer1.0.conv1"
    run(tmp_path / "a", "adapt.choices={layer1.0.conv1: identity}", base=SUPERVISED)
    [fix] = events(tmp_path / "a", "fix")
    assert fix["changed"] == {edge: "identity"}
    with pytest.raises(ValueError, match=r"adapt.choices names single edges: set adapt.sharing=full"):
        load_recipe([*SUPERVISED, "adapt.choices={layer1.0.conv1: none}", "adapt.sharing=cell"])


def test_recalibrated_statistics_are_those_of_the_images_and_go_again():
    train = load_image_splits("digits", image_px=8).train.subset(torch.arange(100))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.BatchNorm2d(4))
    network[3].eval()
    before = copy.deepcopy(network.state_dict())
    flags = [module.training for module in network.modules()]
    drawn = torch.random.get_rng_state()
    images = normalise(train.images(torch.arange(100)), (0.3, 0.3, 0.3), (0.2, 0.2, 0.2))
    with recalibrated(network, [images]):
        inside = network[0](images)
        assert torch.allclose(network[1].running_mean, inside.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(network[1].running_var, inside.var((0, 2, 3)), atol=1e-5)
        assert not torch.equal(network[3].running_var, before["3.running_var"])
        assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(module.momentum == 0.1 for module in network.modules() if isinstance(module, _BatchNorm))


def test_statistics_are_those_without_dropout():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    x, drawn = torch.randn(2, 8, 3), torch.random.get_rng_state()
    with recalibrated(network, x):
        torch.testing.assert_close(network[1].running_mean, x.mean((0, 1)))
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_recalibration_takes_images_of_all_classes(monkeypatch):
    """A set may be sorted by class; here the first 200 images are of one."""
    train = load_image_splits("digits", image_px=8).train
    train = train.subset(train.labels.argsort(stable=True))
    monkeypatch.setattr(monitor, "CALIBRATION_IMAGES", 100)
    taken = []
    monkeypatch.setattr(monitor, "iterate_batches", lambda _, indices, **options: taken.append(indices) or iter(()))
    monkeypatch.setattr(monitor, "recalibrated", lambda network, batches: contextlib.nullcontext())
    watcher = SimpleNamespace(
        bank=train, batch_size=50, device="cpu", workers=0, evaluate=lambda network, begin: "score"
    )
    assert monitor._evaluate_recalibrated(watcher, nn.Identity()) == "score"
    assert len(taken[0]) == len(set(taken[0].tolist())) == 100
    assert train.labels[taken[0]].bincount(minlength=10).min() >= 3


def test_a_run_records_what_recalibration_gives_and_trains_on_as_without(tmp_path, monkeypatch):
    run(tmp_path / "a", "run.accuracy_every_epochs=0", base=SUPERVISED)
    monkeypatch.setattr(monitor, "recalibrated", lambda network, batches: contextlib.nullcontext())
    run(tmp_path / "b", "run.accuracy_every_epochs=0", base=SUPERVISED)
    weights = [(tmp_path / name / "export" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    names = [event["event"] for event in events(tmp_path / "a")]
    assert names.index("recalibrated") == names.index("after_fix") + 1
    [after], [recalibrated] = (events(tmp_path / "a", name) for name in ("after_fix", "recalibrated"))
    assert after["accuracy_top1"] != recalibrated["accuracy_top1"]
    assert "evaluation" not in names
    assert all(event["seconds"] > 0 for event in events(tmp_path / "a", "epoch"))


SAMPLE = ": a sample, as the run is a trial, shorter than a tenth of an epoch"


@pytest.mark.parametrize(
    ("base", "of_trial", "of_run"),
    [
        (TINY, f"bank 400 of 1,297, queries 400 of 500{SAMPLE}", "bank 1,297, queries 500"),
        (SUPERVISED, f"on 128 of 500 test images, not augmented{SAMPLE}", "on 500 test images, not augmented"),
    ],
)
def test_a_trial_says_that_it_measures_on_a_sample(tmp_path, capsys, base, of_trial, of_run):
    name = "kNN" if base is TINY else "accuracy"
    for steps, described in ((8, of_trial), (9, of_run)):  # of 81 in an epoch
        folder = tmp_path / str(steps)
        run(folder, "data.batch_size=16", f"train.max_steps={steps}", base=base)
        said = " ".join(capsys.readouterr().out.split())
        assert said.count(described) == 2, "before the first step, and above the result"
        assert said.count("sample") == 2 * (described == of_trial)
        assert json.loads((folder / "result.json").read_text())["protocol"].endswith(described)
        assert f"BatchNorm recalibrated: the fixed network's {name} top-1 with BatchNorm's running means and" in said
        assert "the same, BatchNorm's statistics measured anew" in said


@pytest.mark.parametrize("module", [Pad(4, 8, 2), Pad(8, 4, 2), create_factorized_reduce(8, 4)])
def test_gradients_stay_channels_last(module):
    x = torch.randn(2, 8 if not isinstance(module, Pad) else module.in_channels, 6, 6)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = x * 1
    seen = []
    y.register_hook(lambda gradient: seen.append(gradient.is_contiguous(memory_format=torch.channels_last)))
    module.to(memory_format=torch.channels_last)(y).square().sum().backward()
    assert seen == [True]


def test_a_subset_is_the_same_for_every_seed_and_no_longer_than_the_whole():
    train = load_image_splits("digits", image_px=8).train
    part = load_image_splits("digits", image_px=8, train_images=300).train
    again = load_image_splits("digits", image_px=8, train_images=300).train
    indices = torch.arange(300)
    assert len(part) == 300
    assert torch.equal(part.images(indices), again.images(indices))
    assert part.labels is not None
    assert train.labels is not None
    assert part.labels.bincount(minlength=10).min() > 15
    assert part.labels.tolist() != train.labels[:300].tolist()
    with pytest.raises(ValueError, match=r"data\.train_images=1298 is more than the 1297 there are: lower it"):
        load_image_splits("digits", image_px=8, train_images=1298)


@pytest.mark.parametrize(
    ("epochs", "adapt", "anneal", "steps"),
    [
        (8, 0.25, 0, (25, 0, 800)),
        (8, 0.001, 0.001, (1, 1, 800)),
        (1, 0.5, 0.5, (50, 50, 100)),
        (1, 1, 0, (100, 0, 100)),
    ],
)
def test_stages_of_parts_of_epochs(epochs, adapt, anneal, steps):
    stages = plan_stages(steps_per_epoch=100, epochs=epochs, adapt_epochs=adapt, anneal_epochs=anneal, max_steps=None)
    assert (stages.architecture_steps, stages.anneal_steps, stages.total_steps) == steps


def test_a_fix_within_an_epoch(tmp_path):
    run(tmp_path / "a", "adapt.epochs=0.5", base=SUPERVISED)
    [fix] = events(tmp_path / "a", "fix")
    assert fix["step"] == 5
    steps = [event["step"] for event in events(tmp_path / "a", "theta")]
    assert steps == [1, 2, 3, 4, 5]
    assert [event["stage"] for event in events(tmp_path / "a", "epoch")] == ["network"] * 3


def test_a_start_at_one_is_the_network_with_all_its_missing_skips():
    torch.manual_seed(0)
    plain = timm.create_model("resnet20_nat", channels=4, cells=3, num_classes=2).eval()
    skipped = copy.deepcopy(plain)
    edges = {s.name: "identity" if s.kind == "none" else "original" for s in plain.edge_specs()}
    assert sum(choice == "identity" for choice in edges.values()) == 9
    apply_architecture(skipped, Architecture("resnet20_nat", {}, edges))
    adaptation = Adaptation(plain, none_rule="threshold", none_threshold=0.5, none_start=1.0)
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(plain(x), skipped(x), atol=1e-6)
    with adaptation.architecture_pass():
        plain(x).square().sum().backward()
    none = next(spec.name for spec in adaptation.edges if spec.kind == "none")
    assert adaptation.theta[none].tolist() == [0.0, 1.0, 1.0]
    with torch.no_grad():
        adaptation.theta[none][1] = 0.4
    assert adaptation.fix().changed == {s: "identity" for s, c in edges.items() if c == "identity" and s != none}


def test_the_clock_goes_on_after_a_stop_within_an_epoch(tmp_path):
    stopped = RunLog(tmp_path, Accelerator(cpu=True), "debug", {})
    stages = plan_stages(steps_per_epoch=2, epochs=2, adapt_epochs=0, anneal_epochs=0, max_steps=None)
    stopped.start_epoch(stages, 0, 0)
    stopped.advance(1.0, 8)
    with stopped.clock_stopped():
        time.sleep(2)
    time.sleep(0.1)
    resumed = RunLog(tmp_path, stopped.accelerator, "debug", {}, stopped.state_dict())
    resumed.start_epoch(stages, 0, 1)
    resumed.advance(1.0, 8)
    seconds, steps = resumed.end_epoch()
    assert 0.1 <= seconds < 2
    assert steps == 2
    assert resumed.state_dict()["epoch"] == (0.0, 0)
    resumed.start_epoch(stages, 1, 2)
    assert resumed.end_epoch()[1] == 0


def test_loss_learning_rate_and_gradient_norm_are_logged_every_so_many_steps(tmp_path):
    run(tmp_path / "some", "train.max_steps=7", "run.log_every_steps=3", "train.schedule=cosine")
    lines = events(tmp_path / "some", "step")
    assert [line["step"] for line in lines] == [3, 6]
    assert all(line["loss"] > 0 and line["gradient_norm"] > 0 for line in lines)
    assert lines[0]["lr"] > lines[1]["lr"] > 0
    run(tmp_path / "none", "train.max_steps=7", "run.log_every_steps=0")
    assert events(tmp_path / "none", "step") == []
    assert_same_weights(tmp_path / "some", tmp_path / "none")
