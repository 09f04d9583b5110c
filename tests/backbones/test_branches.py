"""Residual branches as edges: found in any network, exact at the start, removed for good, exported and loaded."""

import pytest
import timm
import torch
from small_networks import BOTTLENECKS, images, small

import ssl_adapt
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.removal import make_change, possible_changes
from ssl_adapt.backbones.residual_branches import find_branches

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
OURS = {
    "resnet20": ({"width": 4, "layers": (1, 2), "granularity": "branch"}, ["layer1.0", "layer2.1"]),
    "resnet20_bottleneck": ({**BOTTLENECKS, "granularity": "branch"}, ["layer1.1", "layer2.1"]),
    "mobilenetv2_cifar": (
        {"width": 0.125, "settings": ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2)), "granularity": "branch"},
        ["layer1.2", "layer2.1"],
    ),
}
TIMM = {
    "vit_tiny_patch16_224": (VIT, ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"], "none"),
    "resnet18": ({}, ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"], "identity"),
    "convnext_atto": (
        {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
        [f"stages.{stage}.blocks.0" for stage in range(4)],
        "identity",
    ),
    "pvt_v2_b0": ({}, None, "none"),
    "regnety_002": ({}, None, "identity"),
    "mobilenetv3_small_100": ({}, None, "identity"),
    "xcit_nano_12_p16_224": ({"img_size": 32, "depth": 1, "embed_dim": 16, "num_heads": 2}, None, "identity"),
}
LARGE = ("pvt_v2_b0", "regnety_002")  # whole networks of megabytes


def names_of(model):
    return [spec.name for spec in model.edge_specs()]


def check_removal(model, x, build):
    """Mixed at its start and removed: the former is the plain network to the bit, the latter is really smaller."""
    torch.manual_seed(0)
    plain = model.eval()(x)
    adaptation = ssl_adapt.Adaptation(model)
    assert torch.equal(model(x), plain)
    assert Architecture.of(build()).changed == {}
    assert adaptation.fix().changed == {}
    costs = count_parameters(model), count_macs(model, x[:1])
    specs = {spec.name: spec for spec in model.edge_specs()}
    changes = possible_changes([*specs.values()])
    assert len(changes) == len(specs)  # one way to go for each, and dead nodes are none of them
    for change in changes:
        make_change(model, specs, change)
    assert count_parameters(model) < costs[0]
    assert count_macs(model, x[:1]) < costs[1]
    removed = model(x)
    assert not torch.equal(removed, plain)
    return Architecture.of(model), removed


@pytest.mark.parametrize("name", OURS)
def test_residual_blocks_of_our_networks_are_edges(name, tmp_path):
    arguments, expected = OURS[name]
    model = timm.create_model(name, num_classes=3, **arguments)
    assert names_of(model) == expected
    assert {spec.candidates for spec in model.edge_specs()} == {("original", "identity")}
    architecture, output = check_removal(model, images(), lambda: timm.create_model(name, num_classes=3, **arguments))
    assert set(architecture.changed) == set(expected)
    loaded = timm.create_model(f"local-dir:{ssl_adapt.export_timm(model, tmp_path / 'export')}", pretrained=True).eval()
    assert names_of(loaded) == expected
    assert torch.equal(loaded(images()), output)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in TIMM])
def test_residual_branches_of_timm_networks_are_found(name, tmp_path):
    arguments, expected, choice = TIMM[name]

    def build():
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=3, **arguments)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)  # many branches start at zero
        return ssl_adapt.adaptable(network, granularity="branch", model_args=arguments)

    model = build()
    if expected is not None:
        assert names_of(model) == expected
    assert {spec.candidates for spec in model.edge_specs()} == {("original", choice)}
    x = torch.randn(2, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    _, output = check_removal(model, x, build)
    loaded = timm.create_model(f"local-dir:{ssl_adapt.export_timm(model, tmp_path / 'export')}", pretrained=True).eval()
    assert torch.equal(loaded(x), output)


def test_a_removed_block_is_a_block_whose_branch_is_zero():
    model = small(layers=(1, 2), granularity="branch").eval()
    block = model.layer2[1]
    with torch.no_grad():
        block.conv2.bn.weight.zero_()
        block.conv2.bn.bias.zero_()
    expected = model(images())
    apply_architecture(model, Architecture("", {}, {"layer1.0": "original", "layer2.1": "identity"}))
    assert torch.equal(model(images()), expected)


def test_granularity_does_not_change_weights_or_outputs():
    torch.manual_seed(0)
    plain = small()
    torch.manual_seed(0)
    other = small(granularity="branch")
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert torch.equal(plain(images()), other(images()))


def test_branches_that_start_at_zero_are_found_and_nothing_is_left_behind():
    model = timm.create_model("vit_tiny_patch16_224", **VIT)
    for block in model.blocks:
        torch.nn.init.zeros_(block.mlp.fc2.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    random_state = torch.random.get_rng_state()
    assert len(find_branches(model, x)) == 4
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training


def test_networks_on_meta_have_the_same_branches():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", **VIT)
        names = names_of(ssl_adapt.adaptable(model, granularity="branch", model_args=VIT))
    assert names == TIMM["vit_tiny_patch16_224"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "branches"}, "granularity='branches' is not one of block, branch"),
        ({"granularity": "branch", "edges": "blocks.*"}, "leave out edges='blocks.*'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ssl_adapt.adaptable(timm.create_model("vit_tiny_patch16_224", **VIT), model_args=VIT, **arguments)


def test_networks_without_residual_branches_are_refused():
    with pytest.raises(ValueError, match="densenet121 has no residual branch that can be removed"):
        ssl_adapt.adaptable(timm.create_model("densenet121", num_classes=0), granularity="branch")
    with pytest.raises(ValueError, match="granularity='block' is not one of op, branch"):
        small(granularity="block")
