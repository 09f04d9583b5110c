"""Runs whose recipe says the architecture: `model.args.architecture`, as data or as a file."""

import json
from pathlib import Path

import pytest
import torch
from short_runs import TINY, assert_same_weights, run, weights
from small_networks import export_adapted

from ssl_adapt import Architecture
from ssl_adapt.errors import UserError
from ssl_adapt.report.run_architecture import read_architecture
from ssl_adapt.runs.run_record import read_run

SHORT = [*TINY, "train.max_steps=2", "data.train_images=256", "knn.k=5"]


@pytest.mark.parametrize("how", ["adapt=null", "adapt.theta_lr=0.5", "adapt.score=removal adapt.none_start=1"])
def test_a_run_in_a_given_architecture_resumes_exactly(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights are random, so that a found architecture can be trained from scratch; as data, or in a file."""
    export_adapted(tmp_path / "net")
    found = json.loads((tmp_path / "net/config.json").read_text())["model_args"]["architecture"]
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps(found))
    args = "model.args={width: 4, layers: [2, 2], granularity: branch, architecture: %s}"
    given = [*how.split(), "data.train_images=256", "knn.k=5"]
    run(tmp_path / "whole", *given, args % json.dumps(found))
    run(tmp_path / "parts", "run.stop_after_epochs=1", *given, args % file)
    printed = " ".join(capsys.readouterr().out.split())
    assert "weights at random, in an adapted architecture, 1 of 3 edges changed, which stay so" in printed
    assert "untrained network" in printed
    file.unlink()
    run(tmp_path / "parts", "run.resume=auto", *given, args % file)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert not any(name.startswith("layer1.0.") for name in weights(tmp_path / "whole"))
    if how != "adapt=null":
        before = read_architecture(read_run(tmp_path / "parts"))
        assert before is not None
        assert before.before.architecture.edges["layer1.0"] == "identity"


@pytest.mark.parametrize(
    "network",
    [
        ["model.name=resnet20", "model.args={width: 4, layers: [2, 2]}"],
        [
            "model.name=vit_tiny_patch16_224", "data.image_px=16",
            "model.args={img_size: 16, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}",
        ],
    ],
)  # fmt: skip
def test_what_a_run_found_trains_from_scratch_by_its_file(network: list[str], tmp_path: Path) -> None:
    """The file says the arguments and the edges, which are not the network's own with granularity=branch."""
    scores = ["adapt.score=removal", "adapt.granularity=branch", "adapt.score_batches=1", "adapt.budget_macs=0.9"]
    run(tmp_path / "found", *network, *scores, base=SHORT)
    file = tmp_path / "found" / "architecture.json"
    assert Architecture.from_json(file.read_text()).changed
    given = [*network[:-1], f"model.args={{architecture: {file}}}", "adapt=null", "train.max_steps=3"]
    run(tmp_path / "whole", *given, base=SHORT)
    run(tmp_path / "parts", *given, "run.stop_after_epochs=1", base=SHORT)
    run(tmp_path / "parts", *given, "run.resume=auto", base=SHORT)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "found")
    assert set(ours) == set(theirs)
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("none.json", r"^model.args.architecture: none.json"),
        ("{edges: 3}", r"^model.args.architecture: an architecture has exactly the keys"),
        (
            "{version: 1, model: resnet20, model_args: {}, shape_change: pad, edges: {}}",
            "^model.args.architecture does not fit model.name=resnet20: no choice is given for edge 'layer1.0",
        ),
        (
            "{version: 1, model: resnet50_cifar, model_args: {}, shape_change: pad, edges: {}}",
            "^model.args.architecture is an adapted resnet50_cifar: type model.name=resnet50_cifar for",
        ),
        (
            "{version: 1, model: resnet20, model_args: {checkpoint_path: a.pth}, shape_change: pad, edges: {}}",
            "^model.args.architecture: model_args has 'checkpoint_path', which makes timm read other files",
        ),
    ],
)
def test_what_is_no_architecture(architecture: str, message: str, tmp_path: Path) -> None:
    args = f"model.args={{width: 4, layers: [2, 2], architecture: {architecture}}}"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", args, "adapt=null", base=SHORT)
    assert not (tmp_path / "run").exists()


def test_weights_of_an_adapted_network_and_an_architecture(tmp_path: Path) -> None:
    """Weights alone need the architecture beside them; an export has its own."""
    network = export_adapted(tmp_path / "net")
    found = Architecture.of(network).to_dict()
    args = f"model.args={{width: 4, layers: [2, 2], granularity: branch, architecture: {json.dumps(found)}}}"
    file = f"model.weights={tmp_path / 'net/model.safetensors'}"
    run(tmp_path / "run", args, file, "adapt=null", "train.lr=1.0e-30", base=SHORT)
    assert set(weights(tmp_path / "run")) == set(network.state_dict())
    with pytest.raises(UserError, match=r"is an adapted network already: take out model.args.architecture"):
        run(tmp_path / "other", args, f"model.weights={tmp_path / 'net'}", "adapt=null", base=SHORT)


def test_a_network_grows_from_its_plain_form(tmp_path: Path) -> None:
    args = "model.args={architecture: found.json}"
    with pytest.raises(UserError, match=r"^adapt.start_share=0.45 with model.args.architecture: a network grows from"):
        run(tmp_path / "run", args, base=["recipe=grow_resnet20", "data.name=digits", "data.image_px=8"])
