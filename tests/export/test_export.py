"""Exports load through timm and give the same features to the bit."""

import json

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config

from ssl_adapt import Adaptation, Architecture, adaptable, apply_architecture, export_timm, load_export

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
    assert not any(name.startswith("layer1.1.conv2") for name in names)
    assert {"fc.weight", "fc.bias"} < set(names)
    data_config = resolve_model_data_config(load(folder))
    assert {key: tuple(data_config[key]) for key in CFG} == CFG
    assert data_config["crop_pct"] == 1.0


@pytest.mark.parametrize("name", ["resnet20", "resnet10t"])
def test_the_classifier_is_kept_and_left_out_when_it_is_not_wanted(tmp_path, name):
    arguments = {"width": 4} if name == "resnet20" else {"stem_width": 16}
    model = timm.create_model(name, num_classes=7, pretrained_cfg_overlay=CFG, **arguments)
    folder = export_timm(model, tmp_path / "export", extra_args=arguments)
    assert json.loads((folder / "config.json").read_text())["num_classes"] == 7
    x = torch.randn(2, *CFG["input_size"])
    whole = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(whole(x), model.eval()(x))
    model.reset_classifier(0)
    assert torch.equal(load(folder)(x), model(x))
    export_timm(model, folder, extra_args={**arguments, "num_classes": 7})  # those that built it, before the reset
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 0
    assert torch.equal(load(folder)(x), model(x))


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


COAT = {"embed_dims": [8, 8, 8, 8], "serial_depths": [1, 2, 1, 1]}


@pytest.mark.parametrize("choice", ["original", "identity"])
def test_weights_that_modules_share_are_exported_and_still_shared(tmp_path, choice):
    """With "identity", a block is gone that shared its convolutions with the block after it."""
    cfg = {**CFG, "input_size": (3, 32, 32)}
    model = adaptable(timm.create_model("coat_lite_tiny", num_classes=3, pretrained_cfg_overlay=cfg, **COAT))
    shared = len(model.state_dict()) - len(list(model.parameters()))
    assert shared > 30
    adaptation = Adaptation(model, choices={"serial_blocks2.0": choice})
    adaptation.fix()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    folder = export_timm(model, tmp_path / "export")
    x = torch.randn(2, *cfg["input_size"])
    for loaded in (timm.create_model(f"local-dir:{folder}", pretrained=True), load_export(folder)):
        assert torch.equal(loaded.eval()(x), model.eval()(x))
        left = len(loaded.state_dict()) - len(list(loaded.parameters()))
        assert (left == shared) if choice == "original" else (30 < left < shared)
        assert loaded.cpe2 is loaded.serial_blocks2[1].cpe


def test_tensors_that_lie_in_one_memory_are_written_each(tmp_path):
    model = timm.create_model("resnet20", width=4, num_classes=0)
    first, second = model.layer1[0].conv1, model.layer1[0].conv2
    first.conv.weight = second.conv.weight
    first.bn.running_mean, first.bn.running_var = torch.rand(2, 4).unbind()
    overlapping = torch.rand(5)
    second.bn.running_mean, second.bn.running_var = overlapping[:-1], overlapping[1:]
    second.bn.weight.data = torch.rand(1).expand(4)
    loaded = load(export_timm(model, tmp_path / "export"))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), model.eval()(x))  # other strides round differently
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_weights_that_change_on_their_way_to_the_file_are_refused(tmp_path, monkeypatch):
    """The check is real, also where the output does not show the change."""
    import ssl_adapt.export.timm as export

    model, save = timm.create_model("resnet20", width=4), export.save_file
    monkeypatch.setattr(export, "save_file", lambda t, path: save({**t, "fc.bias": t["fc.bias"] + 1}, path))
    with pytest.raises(RuntimeError, match=r"^the export has other weights than the network: 'fc.bias' \(1 in all\)$"):
        export_timm(model, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_what_the_files_do_not_hold_is_found_by_the_output(tmp_path):
    model = timm.create_model("resnet20", width=4)
    model.layer1[0].conv1.register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(RuntimeError, match=r"^the export gives another output than the network \(by up to"):
        export_timm(model, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra_args", "message"),
    [
        (
            None,
            r"^resnet10t could not be loaded again: model\.safetensors does not fit config\.json: 'conv1\.0\.weight' "
            r"is F32 of \(12, 3, 3, 3\) there, .*; if arguments built it, give them as extra_args$",
        ),
        (
            {"stem_width": 8},
            r"^resnet10t could not be loaded again: .* of another shape or type\)$",
        ),
        (
            {"act_layer": torch.nn.GELU},
            r"^config\.json holds a type: numbers, text, lists and mappings are JSON values$",
        ),
    ],
)
def test_a_network_that_timm_would_not_build_again_is_refused(tmp_path, extra_args, message):
    model = timm.create_model("resnet10t", stem_width=16)
    with pytest.raises(ValueError, match=message):
        export_timm(model, tmp_path / "export", extra_args=extra_args)
    assert list(tmp_path.iterdir()) == []


def test_exports_of_before_without_a_classifier_are_loaded(tmp_path):
    """They say num_classes 0 of a network that was trained with 10."""
    model = timm.create_model("resnet20", width=4, num_classes=10)
    config = {
        "architecture": "resnet20", "num_classes": 0, "num_features": 16,
        "model_args": {**model.model_args, "architecture": Architecture.of(model).to_dict()},
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0,
                           "first_conv": "stem.conv", "classifier": "fc", "num_classes": 0},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model.reset_classifier(0)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 32, 32)
    for loaded in (load(tmp_path), load_export(tmp_path)):
        assert torch.equal(loaded.eval()(x), model.eval()(x))
