"""Networks of genotype cells: exact counts, edges, stages, export."""

import json

import pytest
import timm
import torch
from torch import nn

import ssl_adapt
import ssl_adapt.backbones.darts  # registers the networks
from ssl_adapt.adaptation.architecture import replace_module
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.backbones.cell_operations import DropPath
from ssl_adapt.backbones.genotypes import DARTS_V2

COUNTS = [
    ("darts_cifar", {}, 32, 3_349_342, 528_359_040),
    ("darts_cifar", {"num_classes": 200}, 64, 3_458_972, 2_113_528_320),
    ("darts_cifar", {"auxiliary": True}, 32, 3_349_342 + 476_426, 528_359_040),
    ("darts", {}, 32, 1_184_050, 229_097_088),
    ("resnet20_nat", {}, 32, 326_458, 47_727_232),
    ("resnet20_nat", {"genotype": "NAT_ResBlock"}, 32, 337_082, 52_445_824),
    ("mobilenetv2_nat", {}, 32, 102_746, 15_721_088),
    ("darts_cifar", {"genotype": "DARTS_V1"}, 32, 3_169_414, 500_987_520),  # multiply-adds seen once, pinned here
    ("darts_cifar", {"genotype": "NAT_DARTS"}, 32, 2_682_334, 424_181_376),  # seen once, pinned here
    ("darts24_ssl", {"num_classes": 0}, 32, 23_649_390, 3_802_775_040),  # multiply-adds seen once, pinned here
    ("resnet50_nat", {"num_classes": 0}, 32, 23_412_654, 3_027_879_936),  # ours: seen once, pinned here
]


def tiny(genotype="DARTS_V2", **kwargs):
    torch.manual_seed(0)
    return timm.create_model("darts", **{"genotype": genotype, "channels": 4, "cells": 3, **kwargs})


def images(px=16, channels=3):
    return torch.randn(4, channels, px, px, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "arguments", "px", "parameters", "macs"), COUNTS)
def test_parameters_and_multiply_adds(name, arguments, px, parameters, macs):
    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
        assert count_parameters(model) == parameters
        assert count_macs(model, torch.zeros(1, 3, px, px)) == macs


@pytest.mark.parametrize(
    ("name", "arguments", "macs"),
    [
        ("resnet20_nat", {}, 51_397_248),
        ("mobilenetv2_nat", {}, 19_391_104),
        ("resnet50_nat", {"num_classes": 0}, 3_347_945_472),
    ],
)
def test_multiply_adds_if_every_input_were_brought_to_width(name, arguments, macs):
    """The layer lists count both inputs of each cell; nothing reads the first one, so that it is not computed."""
    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
    nones = [spec for spec in model.edge_specs() if spec.kind == "none"]
    assert {spec.source for spec in nones} == {"0"}
    for spec in nones:  # no module of class Zero, which no node skips
        replace_module(model, spec.name, nn.Sequential(model.get_submodule(spec.name)))
    assert count_macs(model, torch.zeros(1, 3, 32, 32)) == macs


def test_edges_by_kind_and_cell_type():
    specs = tiny("NAT_DARTS").edge_specs()
    assert [spec.name for spec in specs[:2]] == ["layer1.0.edge_0_2", "layer1.0.edge_1_2"]
    assert [spec.cell_type for spec in specs[::8]] == ["normal", "reduction", "reduction"]
    kinds = [{kind: [s.kind for s in cell].count(kind) for kind in ("operation", "identity", "none")}
             for cell in (specs[:8], specs[8:16])]  # fmt: skip
    assert kinds[0] == {"operation": 4, "identity": 4, "none": 0}  # two separable convolutions became skips
    assert kinds[1] == {"operation": 5, "identity": 2, "none": 1}  # skips of stride 2 compute something
    skips = [spec for spec in specs[8:16] if spec.operation == "skip_connect"]
    assert {(spec.kind, spec.stride) for spec in skips} == {("identity", 1), ("operation", 2)}
    resblock = tiny("ResBlock", cells=9).edge_specs()
    assert sum(spec.kind == "none" for spec in resblock) == 3 * 9


@pytest.mark.parametrize("genotype", ["DARTS_V2", "NAT_DARTS", "ResBlock", "MobileNetV2"])
def test_specs_say_the_shapes_that_flow(genotype):
    """Every edge maps (in_channels, H) to (out_channels, ceil(H / stride)), seen in a forward pass of odd sizes."""
    model = tiny(genotype)
    specs = {spec.name: spec for spec in model.edge_specs()}
    seen = {}
    for edge in specs:
        module = model.get_submodule(edge)
        module.register_forward_hook(lambda _, x, y, edge=edge: seen.update({edge: (x[0].shape, y.shape)}))
    model(images(18))
    assert len(seen) == sum(spec.kind != "none" for spec in specs.values()) > 0
    assert list(seen) == [name for name, spec in specs.items() if spec.kind != "none"]  # forward order
    for edge, (before, after) in seen.items():
        spec = specs[edge]
        assert (before[1], after[1]) == (spec.in_channels, spec.out_channels)
        assert after[2] == -(-before[2] // spec.stride)


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 7])
def test_stages_begin_at_reduction_cells(cells):
    model = tiny(cells=cells, auxiliary=True)
    reductions = {cells // 3, 2 * cells // 3}
    kinds = [cell.cell_type for stage in model.stages for cell in getattr(model, stage)]
    assert kinds == ["reduction" if index in reductions else "normal" for index in range(cells)]
    assert len(model.stages) == len(reductions | {0})
    logits, auxiliary = model(images())
    assert logits.shape == auxiliary.shape == (4, 10)
    features = timm.create_model("darts", channels=4, cells=cells, features_only=True)
    outputs = features(images())
    assert [output.shape[1] for output in outputs] == features.feature_info.channels()
    assert [16 // output.shape[2] for output in outputs] == features.feature_info.reduction()
    assert len(outputs) == len(model.stages) + 1


def test_auxiliary_logits_in_training_only():
    model = tiny(auxiliary=True, num_classes=5)
    logits, auxiliary = model(images(20))
    assert logits.shape == auxiliary.shape == (4, 5)
    auxiliary.sum().backward()
    assert model.layer2[0].preprocess1.conv.weight.grad is not None
    assert model.fc.weight.grad is None
    assert model.eval()(images()).shape == (4, 5)
    model.train().reset_classifier(0)
    assert model.auxiliary is None
    assert model(images()).shape == (4, model.num_features)


def test_model_args_build_the_plain_network_again(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(DARTS_V2.to_json())
    seen = 0
    for genotype in ("DARTS_V2", path, str(path), DARTS_V2.to_dict(), DARTS_V2):
        model = tiny(genotype, auxiliary=True, drop_path_rate=0.1, in_chans=2)
        assert set(model.model_args) == {"genotype", "channels", "cells", "in_chans", "auxiliary", "global_pool"}
        assert model.model_args["genotype"] == DARTS_V2.to_dict()
        again = timm.create_model("darts_cifar", **json.loads(json.dumps(model.model_args)))
        names = [name for name in model.state_dict() if not name.startswith("auxiliary")]
        assert names == list(again.state_dict())
        assert not any(drop.drop_prob for drop in again.modules() if isinstance(drop, DropPath))
        seen += 1
    assert seen == 5


def test_export_needs_no_genotype_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(DARTS_V2.to_json())
    model = tiny(str(path), auxiliary=True, drop_path_rate=0.2)
    model(images())
    adaptation = ssl_adapt.Adaptation(model)
    adaptation.theta["layer1.0.edge_1_2"].data = torch.tensor([0.0, 1.0, 0.5])
    assert list(adaptation.fix().changed) == ["layer1.0.edge_1_2"]
    ssl_adapt.export_timm(model, tmp_path / "export")
    path.unlink()
    again = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True, num_classes=0).eval()
    model.eval().reset_classifier(0)
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"genotype": "DARTS_v2x"}, "did you mean 'DARTS_V2'"),
        ({"channels": 0}, "channels=0 and cells=3: give positive numbers"),
        ({"cells": 0}, "cells=0: give positive numbers"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0: give a probability from 0 to below 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)
