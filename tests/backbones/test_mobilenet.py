"""MobileNetV2 for small images: exact counts, edges and exactness of the mixed network."""

from collections import Counter

import pytest
import timm
import torch
from small_networks import images

from ssl_adapt import Adaptation, Architecture, apply_architecture, export_timm
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import last_norm_name
from ssl_adapt.adaptation.reachability import find_dead_nodes
from ssl_adapt.backbones.mobilenet import SETTINGS

# One block of each kind: projection without expansion, projection, identity, none.
TINY = {"settings": [[1, 16, 1, 1], [2, 24, 2, 1], [2, 32, 1, 2]], "width": 0.25}


def tiny(**kwargs):
    torch.manual_seed(0)
    return timm.create_model("mobilenetv2_cifar", **{**TINY, **kwargs})


@pytest.mark.parametrize(
    ("classes", "px", "parameters", "macs"), [(10, 32, 2_296_922, 91_154_944), (200, 64, 2_540_312, 364_824_576)]
)
def test_parameters_and_multiply_adds(classes, px, parameters, macs):
    with torch.device("meta"):
        model = timm.create_model("mobilenetv2_cifar", num_classes=classes)
        assert count_parameters(model) == parameters
        assert count_macs(model, torch.zeros(1, 3, px, px)) == macs


def test_shortcuts_stand_where_the_layer_list_says():
    with torch.device("meta"):
        specs = timm.create_model("mobilenetv2_cifar").edge_specs()
    shortcuts = [spec for spec in specs if spec.place == "shortcut"]
    assert len(shortcuts) == sum(row[2] for row in SETTINGS) == 17
    found = {kind: [i for i, spec in enumerate(shortcuts) if spec.kind == kind] for kind in ("operation", "none")}
    assert found == {"operation": [0, 1, 10, 16], "none": [3, 6, 13]}
    assert Counter(spec.kind for spec in specs) == {"operation": 17 * 3 + 4, "identity": 10, "none": 3}


def test_edges_of_each_granularity():
    first = [(s.name, s.operation, s.source, s.target) for s in tiny().edge_specs() if s.cell == "layer2.0"]
    assert first == [
        ("layer2.0.conv.conv1", "conv 1x1", "in", "1"),
        ("layer2.0.conv.conv2", "depthwise 3x3", "1", "2"),
        ("layer2.0.conv.conv3", "conv 1x1", "2", "out"),
        ("layer2.0.shortcut", "none", "in", "out"),
    ]
    whole = [(s.place, s.operation, s.cell_type) for s in tiny(granularity="block").edge_specs()]
    assert whole == [
        ("conv", "mb1 3x3", "projection_unexpanded"),
        ("shortcut", "conv 1x1", "projection_unexpanded"),
        ("conv", "mb2 3x3", "projection"),
        ("shortcut", "conv 1x1", "projection"),
        ("conv", "mb2 3x3", "normal"),
        ("shortcut", "identity", "normal"),
        ("conv", "mb2 3x3", "reduction"),
        ("shortcut", "none", "reduction"),
    ]


def test_granularities_have_the_same_parameters_and_outputs():
    by_operation, by_block = tiny().eval(), tiny(granularity="block").eval()
    states = by_operation.state_dict(), by_block.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(by_operation(images()), by_block(images()))
    assert last_norm_name(by_block.layer1[0].conv) == "conv3.bn"


@pytest.mark.parametrize(("granularity", "groups"), [("op", 4 * 3), ("block", 2 * 4)])
def test_cells_can_share_theta(granularity, groups):
    with torch.device("meta"):
        adaptation = Adaptation(timm.create_model("mobilenetv2_cifar", granularity=granularity), sharing="cell")
    assert len(adaptation.theta) == groups


@pytest.mark.parametrize("granularity", ["op", "block"])
def test_theta_gets_a_gradient_at_every_edge(granularity):
    adaptation = Adaptation(model := tiny(granularity=granularity))
    with adaptation.architecture_pass():
        model(images()).square().sum().backward()
    identities = [adaptation.theta[spec.name].grad[1] for spec in adaptation.edges]
    assert len(identities) == {"op": 16, "block": 8}[granularity]
    assert all(grad.isfinite() and grad != 0 for grad in identities)
    assert all(parameter.grad is None for parameter in adaptation.weight_parameters())


def test_a_reduction_block_without_its_convolutions_is_dead_unless_a_skip_appears():
    specs = tiny().edge_specs()
    assert find_dead_nodes(specs, {"layer2.0.conv.conv3": "none"}) == ["layer2.0:out"]
    assert not find_dead_nodes(specs, {"layer2.0.conv.conv3": "none", "layer2.0.shortcut": "identity"})


@pytest.mark.parametrize("arguments", [{}, TINY])
def test_features_only(arguments):
    model = timm.create_model("mobilenetv2_cifar", features_only=True, **{"width": 0.25, **arguments})
    outputs = model(torch.zeros(1, 3, 32, 32))
    assert [output.shape[1] for output in outputs] == model.feature_info.channels()
    assert [32 // output.shape[2] for output in outputs] == model.feature_info.reduction()
    assert model.feature_info.reduction() == ([1, 1, 2] if arguments else [1, 1, 2, 4, 8])


@pytest.mark.parametrize("granularity", ["op", "block"])
def test_export_keeps_the_granularity(granularity, tmp_path):
    model = tiny(granularity=granularity, pretrained_cfg_overlay={"input_size": (3, 8, 8)})
    edges = {spec.name: "original" for spec in model.edge_specs()}
    removed = "layer1.2.conv.conv2" if granularity == "op" else "layer1.2.conv"
    apply_architecture(model, Architecture("mobilenetv2_cifar", {}, {**edges, removed: "none"}))
    folder = export_timm(model, tmp_path / "net")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    assert loaded.model_args["granularity"] == granularity
    assert Architecture.of(loaded).changed == {removed: "none"}
    assert torch.equal(loaded(images()), model.eval().forward_head(model.forward_features(images()), True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "cell"}, "granularity='cell' is not one of op, block"),
        ({"width": 0}, "width=0 multiplies the channels: give a positive number"),
        ({"settings": []}, "give rows of 4 positive numbers"),
        ({"settings": [[6, 16, 0, 1]]}, "give rows of 4 positive numbers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("mobilenetv2_cifar", **arguments)
