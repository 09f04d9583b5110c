"""The ResNets: exact counts, edges, foreign weights."""

import pytest
import timm
import torch
import torchvision
from timm.data import resolve_model_data_config
from torch import nn

from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.backbones.operations import create_conv_bn
from ssl_adapt.backbones.resnet_weights import load_torchvision_weights
from ssl_adapt.objectives.base import create_mlp

COUNTS = [
    ("resnet20", {"num_classes": 10}, 32, 269_722, 40_551_040),
    ("resnet20", {"num_classes": 200}, 64, 282_072, 162_214_400),
    ("resnet20", {"num_classes": 10, "shortcut": "B"}, 32, 272_474, 40_813_184),
    ("resnet50_cifar", {"num_classes": 0}, 32, 23_500_352, 1_297_809_408),
    ("resnet20_bottleneck", {"num_classes": 0}, 16, 339_060, 13_143_040),  # ours: seen once, pinned here
]


@pytest.mark.parametrize(("name", "arguments", "px", "parameters", "macs"), COUNTS)
def test_parameters_and_multiply_adds(name, arguments, px, parameters, macs):
    model = timm.create_model(name, **arguments)
    assert count_parameters(model) == parameters
    assert count_macs(model, torch.zeros(1, 3, px, px)) == macs


def test_resnet50_with_the_simclr_head():
    network = nn.Sequential(timm.create_model("resnet50_cifar", num_classes=0), create_mlp(2048, 512, 128))
    assert count_parameters(network) == 24_615_616
    assert count_macs(network, torch.zeros(1, 3, 32, 32)) == 1_298_923_520


def test_counting_changes_no_mode():
    model = timm.create_model("resnet20")
    model.layer1.eval()
    count_macs(model, torch.zeros(1, 3, 32, 32))
    assert model.training
    assert not model.layer1.training


def test_edges_by_kind():
    kinds = {}
    for name in ("resnet20", "resnet50_cifar"):
        specs = timm.create_model(name, width=8).edge_specs()
        kinds[name] = {kind: sum(spec.kind == kind for spec in specs) for kind in ("operation", "identity", "none")}
    assert kinds["resnet20"] == {"operation": 18, "identity": 9, "none": 0}
    assert kinds["resnet50_cifar"] == {"operation": 48 + 4, "identity": 12, "none": 48}


def test_data_config_and_input_channels():
    model = timm.create_model("resnet20", pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3), "input_size": (3, 16, 16)})
    config = resolve_model_data_config(model)
    assert config["mean"] == (0.1, 0.2, 0.3)
    assert config["input_size"] == (3, 16, 16)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_weights_of_a_resnet50_load_where_shapes_agree(source):
    """All but the 7x7 stem and the classifier; the blocks then compute what the source's blocks do."""
    torch.manual_seed(0)
    other = torchvision.models.resnet50() if source == "torchvision" else timm.models.resnet50()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    model = timm.create_model("resnet50_cifar", num_classes=10)
    missing = load_torchvision_weights(model, other.state_dict())
    assert sorted(missing) == ["fc.bias", "fc.weight", "stem.conv.weight"]
    x = torch.randn(2, 64, 8, 8).relu()
    other.eval()
    model.eval()
    expected = other.layer3(other.layer2(other.layer1(x)))
    before = x
    for stage in ("layer1", "layer2", "layer3"):
        for block in getattr(model, stage):
            before, x = x, block(x, before)
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shortcut": "b"}, "shortcut='b' is not one of A, B"),
        ({"block": "bottle"}, "block='bottle' is not one of basic, bottleneck"),
        ({"layers": ()}, "at least one stage"),
        ({"width": 0}, "positive numbers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("resnet20", **arguments)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="none of these weights fits"):
        load_torchvision_weights(timm.create_model("resnet20"), {"features.0.weight": torch.zeros(1)})


def test_seeds_keep_their_meaning():
    """A block draws its shortcut's weights first: measured figures belong to a seed and to this order."""
    torch.manual_seed(0)
    model = timm.create_model("resnet20_bottleneck", width=4)
    torch.manual_seed(0)
    create_conv_bn(3, 4, 3)
    assert torch.equal(create_conv_bn(4, 16, 1).conv.weight, model.layer1[0].shortcut.conv.weight)
