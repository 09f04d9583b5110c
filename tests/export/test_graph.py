"""ONNX and torch.export: adapted networks of every family, tried beside the network that they came from."""

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from adapted_networks import FAMILIES, adapted_network
from checkout import ROOT

import ssl_adapt
from ssl_adapt.errors import UserError
from ssl_adapt.export import torch_export
from ssl_adapt.export.graph import export_graph

MEAN, STD = (0.3, 0.31, 0.32), (0.4, 0.3, 0.2)
BOTH = ("features", "logits")
FAST = ("vit of timm, branches",)


def small_network(**arguments: object) -> torch.nn.Module:
    overlay = {"input_size": (3, 8, 8), "mean": MEAN, "std": STD}
    return timm.create_model("resnet20", width=4, layers=[1], pretrained_cfg_overlay=overlay, **arguments)


def images(model: torch.nn.Module, count: int) -> torch.Tensor:
    size = model.pretrained_cfg["input_size"]
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("ending", [pytest.param(".onnx", marks=pytest.mark.slow), ".pt2"])
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def test_every_family_adapted_at_random(family: str, ending: str, tmp_path: Path) -> None:
    model = adapted_network(family)
    assert ssl_adapt.Architecture.of(model).changed
    check = export_graph(model, tmp_path / f"net{ending}", outputs=BOTH)
    print(f"\n| {family} | {ending} | {check.largest:.1e} | {check.relative:.1e} |")  # shown by pytest -s
    assert check.relative < (1e-5 if ending == ".onnx" else 1e-7)
    assert [path.name for path in tmp_path.iterdir()] == [f"net{ending}"]
    assert not model.training
    assert model.num_classes == 5


def test_an_onnx_file_has_all_that_its_user_needs(tmp_path: Path) -> None:
    import onnxruntime

    model = small_network(num_classes=3)
    ssl_adapt.Adaptation(model, choices={"layer1.0.conv2": "identity"}).fix()
    path = tmp_path / "net.onnx"
    check = export_graph(model, path, outputs=BOTH, normalize=True)
    session = onnxruntime.InferenceSession(path)
    [given] = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("images", ["batch", 3, 8, 8], "tensor(float)")
    assert [(output.name, output.shape) for output in session.get_outputs()] == [
        ("features", ["batch", 4]), ("logits", ["batch", 3])
    ]  # fmt: skip
    notes = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert (notes["mean"], notes["std"], notes["input_size"]) == ([*MEAN], [*STD], [3, 8, 8])
    assert notes["input"] == "images from 0 to 1, which the graph normalises"
    assert notes["architecture"]["edges"]["layer1.0.conv2"] == "identity"
    x = images(model, 7)
    features, logits = (torch.from_numpy(output) for output in session.run(None, {"images": x.numpy()}))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = model.eval()((x - mean) / std)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert 0 <= check.relative < 1e-5
    model.reset_classifier(0)
    torch.testing.assert_close(features, model((x - mean) / std), rtol=0, atol=1e-5)
    assert str(ROOT).encode() not in path.read_bytes()


def test_a_pt2_file_takes_normalised_images_unless_told_otherwise(tmp_path: Path) -> None:
    model = small_network(num_classes=3).eval()
    export_graph(model, tmp_path / "net.pt2")
    notes = {torch_export.METADATA: ""}
    loaded = torch.export.load(tmp_path / "net.pt2", extra_files=notes).module()
    x = images(model, 4)
    assert torch.equal(loaded(x)[0], model(x))
    found = json.loads(notes[torch_export.METADATA])
    assert found["outputs"] == ["logits"]
    assert found["input"] == "images from 0 to 1, minus mean, divided by std"
    assert str(ROOT).encode() not in (tmp_path / "net.pt2").read_bytes()


def test_a_file_that_differs_is_not_kept_and_the_one_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path, load = small_network(), tmp_path / "net.pt2", torch_export.load
    path.write_text("of before")
    for wrong in (1e-3, torch.nan):
        monkeypatch.setattr(
            torch_export, "load", lambda file, by=wrong: lambda x: [output + by for output in load(file)(x)]
        )
        with pytest.raises(UserError, match=r"^net\.pt2 would differ from the network by up to .* it was not kept$"):
            export_graph(model, path)
        assert [file.name for file in tmp_path.iterdir()] == ["net.pt2"]
        assert path.read_text() == "of before"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("net.pt", {}, r"^.*net\.pt ends in neither \.onnx nor \.pt2"),
        ("net.pt2", {"outputs": ("logits",)}, "^this network has no classifier, so it gives no logits"),
        ("net.pt2", {"outputs": ("logits", "features")}, r"^outputs=\['logits', 'features'\]: give features or logits"),
        ("net.onnx", {}, r"^ONNX needs onnxscript, not installed here: pip install 'ssl-adapt\[onnx\]'$"),
    ],
)
def test_what_is_refused(
    name: str, arguments: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    model = small_network(num_classes=0)
    with pytest.raises(UserError, match=message):
        export_graph(model, tmp_path / name, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_mixed_network_is_refused(tmp_path: Path) -> None:
    model = small_network()
    ssl_adapt.Adaptation(model)
    with pytest.raises(UserError, match="still mixed"):
        export_graph(model, tmp_path / "net.pt2")
