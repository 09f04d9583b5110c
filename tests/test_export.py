"""Exports load through timm and give the same features to the bit."""

import json

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from timm.data import resolve_model_data_config

from ssl_adapt import Adaptation, Architecture, apply_architecture, export_timm

pytestmark = pytest.mark.exactness

CFG = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 16, 16)}


def load(folder, **kwargs):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **{"num_classes": 0, **kwargs}).eval()


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_random_architectures_export_and_reload(data, tmp_path_factory):
    name, arguments = data.draw(
        st.sampled_from([("resnet20", {"width": 4}), ("resnet50_cifar", {"width": 4, "layers": [1, 2]})])
    )
    model = timm.create_model(name, num_classes=10, pretrained_cfg_overlay=CFG, **arguments)
    choices = {s.name: data.draw(st.sampled_from(["original", "identity", "none"])) for s in model.edge_specs()}
    shape_change = data.draw(st.sampled_from(["pad", "project"]))
    apply_architecture(model, Architecture(name, {}, choices, shape_change))
    model.to(memory_format=torch.channels_last).train()
    for _ in range(2):
        model(torch.randn(4, 3, 16, 16))  # moves the running statistics
    folder = export_timm(model, tmp_path_factory.mktemp("export") / "net")
    loaded = load(folder)
    assert Architecture.of(loaded).changed == Architecture.of(model).changed
    x = torch.randn(3, 3, 16, 16)
    same = timm.create_model(name, num_classes=0, **arguments, architecture=Architecture.of(model)).eval()
    same.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("fc.")})
    assert torch.equal(loaded(x), same(x))
    torch.testing.assert_close(loaded(x), model.eval().forward_head(model.forward_features(x), pre_logits=True))


def test_what_the_folder_holds(tmp_path):
    model = timm.create_model("resnet20", width=4, num_classes=10, pretrained_cfg_overlay=CFG)
    model.to(memory_format=torch.channels_last)
    adaptation = Adaptation(model)
    adaptation.theta["layer1.1.conv2"].data = torch.tensor([1.0, 0.0, 0.0])
    adaptation.fix()
    folder = export_timm(model, tmp_path / "export")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "resnet20"
    assert config["model_args"]["architecture"]["edges"]["layer1.1.conv2"] == "none"
    names = load_file(folder / "model.safetensors")
    assert not any(name.startswith(("fc.", "layer1.1.conv2")) for name in names)
    assert model.get_classifier().out_features == 10, "the exported network itself is not changed"
    data_config = resolve_model_data_config(load(folder))
    assert {key: tuple(data_config[key]) for key in CFG} == CFG
    assert data_config["crop_pct"] == 1.0


def test_loaded_networks_take_timm_options(tmp_path):
    model = timm.create_model("resnet20", width=4, pretrained_cfg_overlay=CFG)
    folder = export_timm(model, tmp_path / "export")
    assert load(folder, num_classes=5)(torch.zeros(1, 3, 16, 16)).shape == (1, 5)
    features = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True)
    assert len(features(torch.zeros(1, 3, 16, 16))) == 4


def test_an_export_is_replaced_and_nothing_else_is(tmp_path):
    first, second = (timm.create_model("resnet20", width=4) for _ in range(2))
    export_timm(first, tmp_path / "export")
    export_timm(second, tmp_path / "export")
    assert torch.equal(load(tmp_path / "export").stem.conv.weight, second.stem.conv.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    (tmp_path / "export" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for occupied in ("export", "file"):
        with pytest.raises(ValueError, match="holds something else than an export"):
            export_timm(first, tmp_path / occupied)
    assert (tmp_path / "export" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("arguments", [{"global_pool": "max"}, {"in_chans": 1}, {"drop_rate": 0.5}])
def test_arguments_that_change_the_features_are_kept(tmp_path, arguments):
    model = timm.create_model("resnet20", width=4, **arguments)
    loaded = load(export_timm(model, tmp_path / "export", extra_args={"pretrained": True}))
    x = torch.randn(2, arguments.get("in_chans", 3), 32, 32)
    model.reset_classifier(0)
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.pretrained_cfg["input_size"][0] == x.shape[1]


def test_other_timm_models_export_too(tmp_path):
    model = timm.create_model("resnet10t", num_classes=4, stem_width=16)
    folder = export_timm(model, tmp_path / "export", extra_args={"stem_width": 16})
    x = torch.randn(1, 3, 64, 64)
    model.reset_classifier(0)
    assert torch.equal(load(folder)(x), model.eval()(x))


def test_mixed_and_foreign_networks_are_refused(tmp_path):
    model = timm.create_model("resnet20", width=4)
    Adaptation(model)
    with pytest.raises(ValueError, match="still mixed"):
        export_timm(model, tmp_path / "export")
    with pytest.raises(ValueError, match="not built by timm"):
        export_timm(torch.nn.Linear(2, 2), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    """The check is real: weights that change on their way to the file make the export fail."""
    import ssl_adapt.export as export

    save = export.save_file
    monkeypatch.setattr(
        export,
        "save_file",
        lambda t, path: save({k: v + 1 if v.is_floating_point() else v for k, v in t.items()}, path),
    )
    with pytest.raises(RuntimeError, match="gives other features"):
        export_timm(timm.create_model("resnet20", width=4), tmp_path / "export")
    assert not (tmp_path / "export").exists()
