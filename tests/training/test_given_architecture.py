"""Runs whose recipe says the architecture: `model.args.architecture`, as data or as a file."""

import json
from pathlib import Path

import pytest
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
    assert "1 of 3 edges changed, which stay so" in " ".join(capsys.readouterr().out.split())
    file.unlink()
    run(tmp_path / "parts", "run.resume=auto", *given, args % file)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert not any(name.startswith("layer1.0.") for name in weights(tmp_path / "whole"))
    if how != "adapt=null":
        before = read_architecture(read_run(tmp_path / "parts"))
        assert before is not None
        assert before.before.architecture.edges["layer1.0"] == "identity"


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("none.json", r"^model.args.architecture: none.json"),
        ("{edges: 3}", r"^model.args.architecture: an architecture has exactly the keys"),
        (
            "{version: 1, model: resnet20, model_args: {}, shape_change: pad, edges: {}}",
            "^model.args.architecture does not fit model.name=resnet20: no choice is given for edge 'layer1.0",
        ),
    ],
)
def test_what_is_no_architecture(architecture: str, message: str, tmp_path: Path) -> None:
    args = f"model.args={{width: 4, layers: [2, 2], architecture: {architecture}}}"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", args, base=SHORT)
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
