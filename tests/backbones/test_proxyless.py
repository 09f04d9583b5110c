"""The networks of ProxylessNAS: exact counts, edges and exactness of the mixed network."""

from collections import Counter

import pytest
import timm
import torch
from small_networks import images
from timm.data import resolve_model_data_config
from torch import nn

from ssl_adapt import Adaptation, Architecture, apply_architecture, export_timm
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import last_norm_name
from ssl_adapt.backbones.proxyless import FOUND

COUNTS = [
    ("proxyless_mobile", 1000, 224, 4_080_512, 320_427_584),
    ("proxyless_mobile_cifar", 10, 32, 2_812_322, 96_753_152),
    ("proxyless_mobile_cifar", 200, 64, 3_055_712, 387_217_408),
    # Seen once and pinned; published are 7.1 M and 4.4 M parameters.
    ("proxyless_gpu", 1000, 224, 7_119_848, 465_260_160),
    ("proxyless_gpu_cifar", 10, 32, 5_408_138, 138_693_504),
    ("proxyless_cpu", 1000, 224, 4_361_648, 439_243_864),
    ("proxyless_cpu_cifar", 10, 32, 2_942_978, 124_983_664),
]
TRANSITIONS = [0, 1, 5, 9, 13, 17, 21]
ZEROS = {"mobile": [3, 4], "gpu": [2, 3, 4, 6, 7, 10, 11, 14], "cpu": [10, 11]}


def tiny(name="proxyless_gpu_cifar", **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **{"width": 0.1, **kwargs})


@pytest.mark.parametrize(("name", "classes", "px", "parameters", "macs"), COUNTS)
def test_parameters_and_multiply_adds(name, classes, px, parameters, macs):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=classes)
        assert count_parameters(model) == parameters
        assert count_macs(model, torch.zeros(1, 3, px, px)) == macs


@pytest.mark.parametrize("target", FOUND)
def test_names_are_the_same_for_all_image_sizes(target):
    """Default classes and input size differ; all weights but the classifier's fit."""
    large, small = tiny(f"proxyless_{target}"), tiny(f"proxyless_{target}_cifar")
    assert (large.num_classes, small.num_classes) == (1000, 10)
    shapes = [{k: v.shape for k, v in m.state_dict().items() if not k.startswith("fc.")} for m in (large, small)]
    assert shapes[0] == shapes[1]
    assert large.edge_specs() != small.edge_specs(), "strides differ"
    config = resolve_model_data_config(large)
    assert (config["input_size"], config["mean"]) == ((3, 224, 224), (0.485, 0.456, 0.406))
    assert resolve_model_data_config(small)["input_size"] == (3, 32, 32)


@pytest.mark.parametrize("target", FOUND)
@pytest.mark.parametrize("suffix", ["", "_cifar"])
def test_blocks_stand_where_the_layer_list_says(target, suffix):
    with torch.device("meta"):
        specs = timm.create_model(f"proxyless_{target}{suffix}").edge_specs()
    cells = list(dict.fromkeys(spec.cell for spec in specs))
    assert len(cells) == 22
    kinds = {cell: [(spec.place, spec.kind) for spec in specs if spec.cell == cell] for cell in cells}
    transitions = [i for i, cell in enumerate(cells) if kinds[cell] == [("conv", "operation")]]
    zeros = [i for i, cell in enumerate(cells) if kinds[cell] == [("conv", "none"), ("shortcut", "identity")]]
    normals = [i for i, cell in enumerate(cells) if kinds[cell] == [("conv", "operation"), ("shortcut", "identity")]]
    assert (transitions, zeros) == (TRANSITIONS, ZEROS[target])
    assert sorted(transitions + zeros + normals) == list(range(22))
    for spec in specs:
        cuts = spec.cell in [cells[i] for i in TRANSITIONS]
        assert spec.candidates == (("original", "identity") if cuts else ("original", "identity", "none"))
        assert spec.changes_shape == cuts


def test_labels_say_expansion_and_kernel():
    with torch.device("meta"):
        specs = timm.create_model("proxyless_mobile").edge_specs()
    labels = [spec.operation for spec in specs if spec.place == "conv"]
    assert labels[:6] == ["mb1 3x3", "mb3 5x5", "mb3 3x3", "none", "none", "mb3 7x7"]
    assert Counter(labels) == {
        "mb1 3x3": 1, "mb3 3x3": 2, "mb3 5x5": 9, "mb3 7x7": 3, "mb6 5x5": 1, "mb6 7x7": 4, "none": 2,
    }  # fmt: skip


def test_edges_of_the_single_operations():
    specs = tiny(granularity="op").edge_specs()
    first = [(s.place, s.operation, s.source, s.target) for s in specs if s.cell == "layer1.0"]
    assert first == [
        ("conv.conv2", "depthwise 3x3", "in", "2"),
        ("conv.conv3", "conv 1x1", "2", "out"),
    ]
    second = [(s.place, s.operation, s.source, s.target) for s in specs if s.cell == "layer2.0"]
    assert second == [
        ("conv.conv1", "conv 1x1", "in", "1"),
        ("conv.conv2", "depthwise 5x5", "1", "2"),
        ("conv.conv3", "conv 1x1", "2", "out"),
    ]
    assert all("none" not in spec.candidates for spec in specs if spec.cell_type == "transition")
    assert [s.place for s in specs if s.cell == "layer3.3"] == ["conv.conv1", "conv.conv2", "conv.conv3", "shortcut"]
    assert [s.place for s in specs if s.cell == "layer3.1"] == ["conv", "shortcut"], "nothing to take apart in a zero"
    kinds = {}
    for spec in specs:
        kinds.setdefault((spec.cell_type, spec.place), set()).add(spec.kind)
    assert len(kinds) == 3 + 4 + 2
    assert all(len(found) == 1 for found in kinds.values())


def test_granularities_have_the_same_parameters_and_outputs():
    by_block, by_operation = tiny().eval(), tiny(granularity="op").eval()
    states = by_operation.state_dict(), by_block.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(by_operation(images()), by_block(images()))
    assert last_norm_name(by_block.layer2[0].conv) == "conv3.bn"
    norms = [module for module in by_block.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 2 + 3 * 13 + 1
    assert {norm.eps for norm in norms} == {1e-3}


@pytest.mark.parametrize("granularity", ["op", "block"])
@pytest.mark.parametrize("target", FOUND)
def test_cells_that_differ_can_not_share_theta(target, granularity):
    with pytest.raises(ValueError, match="cells"):
        Adaptation(tiny(f"proxyless_{target}_cifar", granularity=granularity), sharing="cell")


@pytest.mark.parametrize("granularity", ["op", "block"])
def test_a_block_without_shortcut_never_becomes_none(granularity):
    model = tiny(granularity=granularity)
    adaptation = Adaptation(model)
    for theta in adaptation.theta_parameters():
        theta.data = torch.tensor([1.0, 0.0, 0.0])
    transitions = [state for state in adaptation.states() if state.spec.cell_type == "transition"]
    assert len(transitions) == {"block": 7, "op": 2 + 6 * 3}[granularity]
    assert all(state.choice == "original" for state in transitions)
    edges = {spec.name: "original" for spec in adaptation.edges}
    with pytest.raises(ValueError, match="candidates are original, identity"):
        apply_architecture(
            tiny(granularity=granularity), Architecture("", {}, {**edges, transitions[0].spec.name: "none"})
        )


@pytest.mark.parametrize(("name", "reduction"), [("proxyless_mobile", [2, 2, 4, 8, 16, 32]),
                                                 ("proxyless_mobile_cifar", [1, 1, 1, 2, 4, 8])])  # fmt: skip
def test_features_only(name, reduction):
    model = tiny(name, features_only=True).eval()
    outputs = model(torch.zeros(1, 3, 32, 32))
    assert [output.shape[1] for output in outputs] == model.feature_info.channels()
    assert [32 // output.shape[2] for output in outputs] == model.feature_info.reduction() == reduction


@pytest.mark.parametrize("granularity", ["op", "block"])
def test_export_keeps_the_granularity(granularity, tmp_path):
    model = tiny(granularity=granularity, pretrained_cfg_overlay={"input_size": (3, 8, 8)})
    edges = {spec.name: "original" for spec in model.edge_specs()}
    part = ".conv2" if granularity == "op" else ""
    changed = {"layer2.1.conv": "identity", f"layer3.3.conv{part}": "none", f"layer5.0.conv{part}": "identity"}
    apply_architecture(model, Architecture("proxyless_gpu_cifar", {}, {**edges, **changed}, "project"))
    folder = export_timm(model, tmp_path / "net")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    assert loaded.model_args["granularity"] == granularity
    assert Architecture.of(loaded).changed == changed
    assert torch.equal(loaded(images()), model.eval().forward_head(model.forward_features(images()), True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "cell"}, "granularity='cell' is not one of op, block"),
        ({"width": -1.0}, "width=-1.0 multiplies the channels: give a positive number"),
        ({"target": "tpu"}, "target='tpu' is not one of mobile, gpu, cpu"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("proxyless_mobile_cifar", **arguments)
