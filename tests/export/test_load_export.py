"""`load_export`: timm's way of loading, after everything in the folder was looked at."""

import json
from pathlib import Path

import pytest
import timm
import torch
from small_networks import images, small

from ssl_adapt import Adaptation, Architecture, export_timm, load_export
from ssl_adapt.evaluation.frozen_network import load_network


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small(num_classes=3)
    adaptation = Adaptation(model)
    adaptation.theta["layer2.1.conv2"].data = torch.tensor([0.0, 1.0, 0.0])
    adaptation.fix()
    return export_timm(model, tmp_path_factory.mktemp("export") / "net")


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 0}, {"num_classes": 5}, {"in_chans": 1, "drop_rate": 0.5}])
def test_it_gives_what_timm_gives(export: Path, arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    expected = timm.create_model(f"local-dir:{export}", pretrained=True, **arguments)
    torch.manual_seed(0)
    loaded = load_export(export, **arguments)
    assert loaded.training == expected.training
    x = images()[:, : arguments.get("in_chans", 3)]
    assert torch.equal(loaded.eval()(x), expected.eval()(x))
    assert Architecture.of(loaded) == Architecture.of(expected)


def test_it_takes_timm_s_options(export: Path) -> None:
    maps = load_export(str(export), features_only=True, out_indices=(1, 2)).eval()(images())
    assert [len(feature_map[0]) for feature_map in maps] == [4, 8]
    torch.manual_seed(1)  # not that of the export
    random = load_export(export, pretrained=False)
    assert not torch.equal(random.stem.conv.weight, load_export(export).stem.conv.weight)


def test_a_folder_in_the_home_folder(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(export.parent))
    assert load_export("~/net").num_classes == 3


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        ("net", {"num_clases": 3}, "net cannot be loaded: .*unexpected keyword argument 'num_clases'"),
        ("no_such_net", {}, "no_such_net cannot be loaded: there is no such folder"),
        (".", {}, r"\. cannot be loaded: it has no model\.safetensors: write the folder with export_timm"),
        ("net/config.json", {}, "net/config.json cannot be loaded: there is no such folder"),
    ],
)
def test_what_can_not_be_loaded(
    export: Path, monkeypatch: pytest.MonkeyPatch, folder: str, arguments: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(export.parent)
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        load_export(folder, **arguments)
    assert str(caught.value).isprintable()


def test_knn_evaluation_loads_in_this_way(export: Path, tmp_path: Path) -> None:
    name = f"local-dir:{export}"
    features = load_export(export, num_classes=0).eval()
    assert torch.equal(load_network(name, pretrained=True)(images()), features(images()))
    folder = tmp_path / "net"
    folder.mkdir()
    config = json.loads((export / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "url": "https://example.com/net.pth"}))
    (folder / "model.safetensors").write_bytes((export / "model.safetensors").read_bytes())
    for load in (lambda: load_export(folder), lambda: load_network(f"local-dir:{folder}", pretrained=True)):
        with pytest.raises(ValueError, match=r"net cannot be loaded: config\.json has the unknown key 'url': take it"):
            load()


def test_timm_s_own_exports_are_loaded_too(tmp_path: Path) -> None:
    """Also those of networks whose configuration names no first convolution."""
    model = timm.create_model("csatv2", num_classes=2)
    timm.models.save_for_hf(model, tmp_path / "net", safe_serialization=True)
    loaded = load_export(tmp_path / "net")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
