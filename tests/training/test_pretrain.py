"""The loop, end to end on the embedded digits: stages, resume to the bit, inputs of all kinds, errors."""

import json
from functools import partial

import pytest
import timm
import torch
from image_folders import write_noise
from short_runs import assert_same_weights, events, run, run_in_parts, timeless, timeless_events, weights

from ssl_adapt import Architecture, load_recipe, pretrain
from ssl_adapt.training.optimizers import keep_only


def test_a_run_leaves_everything_it_promised(tmp_path, capsys):
    export = run(tmp_path / "a", "knn.every_epochs=1")
    folder = tmp_path / "a"
    assert export == folder / "export"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        ".lock", "architecture.json", "checkpoints", "export", "metrics.jsonl", "recipe.yaml", "result.json",
        "status.json",
    }  # fmt: skip
    steps = 1297 // 128
    order = [(event["event"], event["step"]) for event in events(folder) if event["event"] != "theta"]
    assert order == [
        ("start", 0), ("raw_pixels", 0), ("untrained", 0), ("epoch", steps), ("evaluation", steps),
        ("before_fix", steps), ("after_fix", steps), ("recalibrated", steps), ("fix", steps),
        ("epoch", 2 * steps), ("result", 2 * steps),
    ]  # fmt: skip
    result = json.loads((folder / "result.json").read_text())
    assert set(result["knn_top1"]) == {"raw_pixels", "untrained", "before_fix", "after_fix", "recalibrated", "result"}
    assert 0.5 < result["knn_top1"]["raw_pixels"] <= 1
    assert (result["train_images"], result["test_images"], result["classes"]) == (1297, 500, 10)
    architecture = Architecture.from_json((folder / "architecture.json").read_text())
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=0)
    assert Architecture.of(loaded) == architecture
    printed = capsys.readouterr().out
    for words in (
        "edges     ",
        "Architecture fixed after step 10",
        "raw pixels",
        "after the run",
        "local-dir:",
        "k 200",
    ):
        assert words.strip() in printed


def test_the_saved_recipe_reproduces_the_run(tmp_path):
    run(tmp_path / "a", *FEW_IMAGES)
    pretrain(load_recipe([f"recipe={tmp_path / 'a' / 'recipe.yaml'}", f"run.dir={tmp_path / 'b'}"]))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    run(tmp_path / "c", *FEW_IMAGES, "seed=1")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "a", tmp_path / "c")


ANNEAL = ["train.epochs=5", "adapt.epochs=2", "adapt.mode=anneal", "adapt.anneal_epochs=2", "adapt.theta_lr=0.3"]
FEW_IMAGES = ["data.train_images=200", "data.batch_size=96"]
BOTTLENECKS = ["model.name=resnet50_cifar", "model.args={width: 4, layers: [1, 2], shortcut: B}"]


INTERRUPTED = [*ANNEAL, *FEW_IMAGES, *BOTTLENECKS, "adapt.shape_change=project", "adapt.theta_batch=next"]


@pytest.mark.exactness
def test_stopped_and_resumed_equals_uninterrupted(tmp_path):
    """To the bit, though it stops in the architecture stage, at its end, while annealing, and after the fix."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, *INTERRUPTED)
    run_in_parts(partial(run, parts, *INTERRUPTED), (1, 2, 3, 4))
    assert_same_weights(whole, parts)
    architectures = [(folder / "architecture.json").read_text() for folder in (whole, parts)]
    assert architectures[0] == architectures[1]
    assert Architecture.from_json(architectures[0]).changed, "the comparison means more if edges changed"
    assert timeless_events(whole) == timeless_events(parts)


@pytest.mark.exactness
def test_resumed_after_operations_were_removed(tmp_path, capsys):
    """The optimiser then holds fewer weights than at the start, in both runs; and the plan tells of the rest alone."""
    arguments = ["train.epochs=3", "adapt.theta_lr=0.5", "data.train_images=256", "data.batch_size=64"]
    run(tmp_path / "whole", *arguments)
    changed = Architecture.from_json((tmp_path / "whole" / "architecture.json").read_text()).changed
    assert any(name.endswith(("conv1", "conv2")) for name in changed)
    run(tmp_path / "parts", *arguments, "run.stop_after_epochs=2")
    plans = [capsys.readouterr().out]
    run(tmp_path / "parts", *arguments, "run.resume=auto")
    plans.append(capsys.readouterr().out)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    [fix] = events(tmp_path / "parts", "fix")
    cost = f"resnet20: {fix['parameters']:,} parameters, {fix['macs']:,} multiply-adds"
    assert [cost in " ".join(plan.split()) for plan in plans] == [False, True]


def test_the_optimizer_forgets_what_is_gone():
    kept, gone = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*kept.parameters(), *gone.parameters()])
    (kept(torch.ones(1, 2)) + gone(torch.ones(1, 2))).sum().backward()
    optimizer.step()
    keep_only(optimizer, kept.parameters())
    assert optimizer.param_groups[0]["params"] == list(kept.parameters())
    assert set(optimizer.state) == set(kept.parameters())


def test_a_finished_run_can_be_resumed_and_only_exports_again(tmp_path):
    run(tmp_path / "a", *FEW_IMAGES)
    before = weights(tmp_path / "a")
    run(tmp_path / "a", *FEW_IMAGES, "run.resume=auto")
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "a").items())


@pytest.mark.parametrize(
    "arguments",
    [
        ["adapt=null"],
        ["adapt.sharing=cell", "objective.view_forward=joint"],
        ["adapt.theta_updates_bn=true", "adapt.scale=fold", "adapt.shape_change=forbid"],
        ["train.optimizer=sgd", "train.momentum=0.9", "train.clip_grad_norm=1.0", "train.schedule=cosine"],
        ["adapt.epochs=2", "knn.layer=projection", "knn.weighting=majority"],
        ["train.precision=bfloat16", "train.max_steps=4"],
        [*BOTTLENECKS, "adapt.none_rule=literal"],
    ],
)
def test_every_option_runs_and_exports(tmp_path, arguments):
    few = ["data.train_images=400", "train.max_steps=6"]
    assert run(tmp_path / "a", *few, *[a for a in arguments if "max_steps" not in a]) is not None
    expected = [] if "adapt=null" in arguments else ["architecture.json"]
    assert [path.name for path in (tmp_path / "a").glob("architecture.json")] == expected


def test_original_and_adapted_start_from_the_same_weights(tmp_path):
    """adapt=null is the same run without theta: the untrained networks score the same."""
    for name, arguments in (("original", ["adapt=null"]), ("adapted", [])):
        run(tmp_path / name, "train.max_steps=10", "data.batch_size=640", *arguments)
    first = [events(tmp_path / name, "untrained")[0] for name in ("original", "adapted")]
    assert timeless(first[0]) == timeless(first[1])


def test_a_plain_timm_model_trains_without_adaptation(tmp_path):
    arguments = ["model.name=resnet10t", "model.args={stem_width: 8}", "data.image_px=32", "data.train_images=256"]
    arguments += ["train.max_steps=2"]
    assert run(tmp_path / "a", "adapt=null", *arguments) is not None
    with pytest.raises(ValueError, match="none of the 4 modules that match"):
        run(tmp_path / "b", *arguments)
    vit = ["model.name=vit_tiny_patch16_224", "model.args={depth: 1}", "data.image_px=8", "adapt=null"]
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 can't take RGB images of data\.image_px=8"):
        run(tmp_path / "b", *vit)
    assert not (tmp_path / "b").exists()


def test_unlabelled_grey_odd_sized_images_train_without_knn(tmp_path, capsys):
    write_noise(tmp_path / "images", 9)
    folder = ["data.name=folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4"]
    assert run(tmp_path / "a", *folder) is not None
    assert "no labels" in capsys.readouterr().out
    assert "knn_top1" not in events(tmp_path / "a", "result")[0]
    assert events(tmp_path / "a", "result")[0]["rank_me"] > 0


def test_class_folders_with_k_as_large_as_the_bank(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for label in ("cat", "dog"):
            write_noise(tmp_path / "images" / split / label, count, mode="RGBA")
    folder = ["data.name=folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4", "knn.k=8"]
    assert run(tmp_path / "a", *folder) is not None
    with pytest.raises(ValueError, match=r"knn\.k=9 is more than the 8 training images"):
        run(tmp_path / "b", *folder[:-1], "knn.k=9")
    with pytest.raises(ValueError, match=r"data\.batch_size=9 is more than the 8 training images"):
        run(tmp_path / "b", *folder[:-2], "knn.k=8", "data.batch_size=9")
    assert not (tmp_path / "b").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    run(tmp_path / "a", "train.max_steps=2")
    before = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run already: type run\.resume=auto"):
        run(tmp_path / "a", "train.max_steps=2")
    with pytest.raises(ValueError, match=r"other values: seed \(0, now 1\), train\.lr"):
        run(tmp_path / "a", "train.max_steps=2", "run.resume=auto", "seed=1", "train.lr=0.5")
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == before


def test_stopping_again_where_it_stopped_stays_there(tmp_path):
    assert run(tmp_path / "a", *FEW_IMAGES, "run.stop_after_epochs=1") is None
    assert run(tmp_path / "a", *FEW_IMAGES, "run.stop_after_epochs=1", "run.resume=auto") is None
    (tmp_path / "a" / "metrics.jsonl").write_text("")  # lost: the run goes on without its past
    assert run(tmp_path / "a", *FEW_IMAGES, "run.resume=auto") is not None


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"wandb is not installed: pip install 'ssl-adapt\[wandb\]'"):
        run(tmp_path / "b", "run.trackers=[wandb]")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(ValueError, match="is a file: name a folder"):
        run(tmp_path / "a")


def test_too_short_stages_are_announced(tmp_path, capsys):
    few = [*FEW_IMAGES, "train.max_steps=4"]
    run(tmp_path / "a", *few, "adapt.theta_lr=3e-4", "adapt.none_rule=literal")
    assert "warning: no edge is likely to change: the quickest needs about 1,667 steps" in capsys.readouterr().out
    run(tmp_path / "b", *few, "adapt.theta_lr=0.5")
    run(tmp_path / "c", *few, "adapt.theta_lr=3e-4", "adapt.choices={layer1.0.conv2: identity}")
    assert "warning" not in capsys.readouterr().out
