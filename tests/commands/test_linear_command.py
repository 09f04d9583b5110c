"""`ssl-adapt linear`: what it scores, prints and writes."""

import json
from pathlib import Path

import pytest
import timm
import torch
from image_folders import write_images
from script_calls import PX, create_export, create_run, run_command

from ssl_adapt.data import load_image_splits
from ssl_adapt.data.label_splits import split_labels
from ssl_adapt.evaluation.linear import evaluate_linear
from ssl_adapt.evaluation.linear_protocol import FeaturesProtocol, SgdProtocol
from ssl_adapt.evaluation.linear_score import create_probe
from ssl_adapt.recipe import load_recipe, save_recipe


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_export(tmp_path_factory.mktemp("models") / "export")


def test_the_record_has_the_score_its_interval_and_the_split(export: Path, tmp_path: Path) -> None:
    path = tmp_path / "linear.json"
    output = run_command("linear", f"model={export}", "data=digits", "labelled_share=0.1", f"json={path}")
    assert output.code == 0, output.err
    values = json.loads(path.read_text(encoding="utf-8"))
    train, test = load_image_splits("digits", image_px=PX)
    split = split_labels(train.labels, 0.1)
    network = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=0)
    config = timm.data.resolve_model_data_config(network)
    expected = evaluate_linear(
        network, train.subset(split.indices), test, FeaturesProtocol(), mean=config["mean"], std=config["std"],
        batch_size=500, device=torch.device("cpu"), workers=0,
    )  # fmt: skip
    assert (values["top1"], values["top5"], values["chosen"]) == (expected.top1, expected.top5, expected.chosen)
    assert values["labels"] == split.to_dict()
    interval = values["top1_interval"]
    assert (interval["method"], interval["level"], interval["low"], interval["high"]) == (
        "wilson",
        0.95,
        *expected.interval,
    )
    assert values["protocol"] == {"name": "features", "penalties": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
                                  "held_out_images": 2000, "max_iterations": 1000}  # fmt: skip
    assert (values["test_images"], values["features"], values["held_out"]["images"]) == (500, 32, 130)
    assert [entry["share"] for entry in values["held_out"]["right"]] == [*expected.held_out.values()]
    assert f"top-1 {expected.top1:.2%} (" in output.out
    assert f"labels: {split}" in output.out


def test_sgd_plain_takes_each_image_as_it_is(export: Path) -> None:
    probe = create_probe({"model": str(export), "data": "digits", "protocol": "sgd_plain", "epochs": 3}, None)
    assert (probe.protocol.name, probe.protocol.augments, probe.protocol.epochs) == ("sgd_plain", False, 3)
    assert str(probe.protocol).startswith("linear by SGD on cached features, 3 epochs")
    assert create_probe({"model": str(export), "data": "digits", "protocol": "sgd"}, None).protocol.augments


def test_the_classic_protocol_of_any_timm_model(tmp_path: Path) -> None:
    path = tmp_path / "linear.json"
    output = run_command(
        "linear", "model=test_resnet", "data=digits", "image_px=32", "pretrained=false", "labelled_share=0.05",
        "protocol=sgd", "epochs=2", "seed=3", f"json={path}",
    )  # fmt: skip
    assert output.code == 0, output.err
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["protocol"]["epochs"] == 2
    assert values["protocol"]["seed"] == 3
    assert values["protocol"] == json.loads(json.dumps(SgdProtocol(epochs=2, seed=3).to_dict()))
    assert values["chosen"] in SgdProtocol().learning_rates
    assert "test_resnet, random weights: top-1 " in output.out
    assert "learning rate" in output.out


def test_a_run_brings_its_images_and_its_share_of_labels(export: Path, tmp_path: Path) -> None:
    few = ("recipe=supervised_resnet20", "data.name=digits", f"data.image_px={PX}", "data.labelled_share=0.05")
    plain = create_run(tmp_path / "plain", export, "data.train_images=400")
    assert run_command("linear", f"model={plain}", f"json={tmp_path / 'a.json'}").code == 0
    labels = json.loads((tmp_path / "a.json").read_text())["labels"]
    assert (labels["share"], labels["images"], labels["of"]) == (1.0, 400, 400)
    (tmp_path / "run").mkdir()
    save_recipe(load_recipe(few), tmp_path / "run" / "recipe.yaml")
    (tmp_path / "run" / "export").symlink_to(export)
    for typed, images in (([], 65), (["labelled_share=0.1"], 130)):
        assert run_command("linear", f"model={tmp_path / 'run'}", f"json={tmp_path / 'b.json'}", *typed).code == 0
        assert json.loads((tmp_path / "b.json").read_text())["labels"]["images"] == images


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["epochs=3"], "epochs=3 has no meaning for protocol=features, which has one solution: leave it out or add "
         "protocol=sgd"),
        (["labelled_share=0.001"], "labelled_share=0.001 is 1 of 1297 images, and there are 10 classes: type at "
         "least 0.0077"),
        (["data=folder"], "data=folder needs root=PATH, a folder of images or a tar of one"),
    ],
)  # fmt: skip
def test_mistakes(export: Path, typed: list[str], said: str) -> None:
    data = [] if any(word.startswith("data=") for word in typed) else ["data=digits"]
    output = run_command("linear", f"model={export}", *data, *typed)
    assert (output.code, output.err) == (2, f"error: {said}\n")


def test_images_without_labels(export: Path, tmp_path: Path) -> None:
    """The sentence names what was typed, and no key that was not."""
    write_images(tmp_path / "set", *(f"{index}.png" for index in range(6)))
    output = run_command("linear", f"model={export}", "data=folder", f"root={tmp_path / 'set'}")
    assert (output.code, output.err) == (2, (
        f"error: data=folder root={tmp_path / 'set'} has no labels, and a linear probe needs them: give images in one "
        "folder for each class, under train/ and test/\n"
    ))  # fmt: skip
