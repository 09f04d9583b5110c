"""Cells of genotypes: operations, drop-path, and what adaptation makes of them."""

import pytest
import timm
import torch
from torch import nn

import ssl_adapt
import ssl_adapt.backbones.darts  # registers the networks
from ssl_adapt.adaptation.edge import MixedEdge, Zero, last_norm_name
from ssl_adapt.backbones.cell_operations import DropPath, create_operation, set_drop_path
from ssl_adapt.backbones.cells import GenotypeCell
from ssl_adapt.backbones.genotypes import OPERATIONS, CellGenotype, GenotypeEdge

FORMS = ("DARTS_V1", "DARTS_V2", "NAT_DARTS", "ResBlock", "NAT_ResBlock", "MobileNetV2", "Bottleneck")


def tiny(genotype="DARTS_V2", **kwargs):
    torch.manual_seed(0)
    return timm.create_model("darts", **{"genotype": genotype, "channels": 4, "cells": 3, **kwargs})


def images(px=16, channels=3):
    return torch.randn(4, channels, px, px, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, stride):
    """Shapes with odd sizes; the input stays as it was; a BatchNorm ends what has one, drop-path or not."""
    operation = create_operation(name, 4, stride)
    x = images(9, 4)
    kept = x.clone()
    assert operation(x).shape == (4, 4, -(-9 // stride), -(-9 // stride))
    assert torch.equal(x, kept)
    is_free = name == "none" or (name == "skip_connect" and stride == 1)
    assert any(isinstance(module, DropPath) for module in operation.modules()) == (not is_free)
    norm = last_norm_name(operation)
    assert (norm is None) == (is_free or "pool" in name)
    if norm is not None:
        assert isinstance(operation, nn.Sequential)
        assert isinstance(operation.get_submodule(norm), nn.BatchNorm2d)


def test_factorized_reduce_sees_every_pixel():
    operation = create_operation("skip_connect", 4, 2).eval()
    x = (images(5, 4).abs() + 1).requires_grad_()
    operation(x).abs().sum().backward()
    odd_even = (torch.arange(5)[:, None] + torch.arange(5)[None]) % 2 == 0
    assert (x.grad.abs().sum((0, 1)) > 0)[odd_even].all()  # both even (first half) and both odd (second half)
    assert operation(images(6, 4)).shape == (4, 4, 3, 3)


def test_average_pool_does_not_count_the_padding():
    ones = torch.ones(1, 4, 4, 4)
    assert torch.equal(create_operation("avg_pool_3x3", 4, 1)(ones), ones)


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="unknown operation 'conv_9x9'; available: none"):
        create_operation("conv_9x9", 4, 1)


def test_second_edge_between_the_same_nodes_and_dead_nodes():
    edges = (
        GenotypeEdge("conv_1x1", 0, 2),
        GenotypeEdge("skip_connect", 0, 2),
        GenotypeEdge("none", 1, 3),
        GenotypeEdge("conv_5x5", 1, 4),
        GenotypeEdge("conv_7x1_1x7", 2, 4),
    )
    cell = GenotypeCell(CellGenotype(edges, (3, 4)), (6, 5), 4, reduces=True, follows_reduction=True)
    assert [edge.place for edge in cell.edges] == ["edge_0_2", "edge_0_2_b", "edge_1_3", "edge_1_4", "edge_2_4"]
    assert isinstance(cell.edge_1_3, Zero)
    output = cell(images(5, 5), before=images(10, 6))
    assert output.shape == (4, 8, 3, 3)
    assert not output[:, :4].any()


def computed(cell, *inputs):
    """The names of the cell's own submodules that a forward pass calls."""
    names = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: names.append(name)) for name, module in cell.named_children()
    ]
    cell(*inputs)
    for hook in hooks:
        hook.remove()
    return names


def test_what_nothing_reads_is_not_computed():
    """As the edges change: input 0 where only none edges leave it, and a node whose only reader became none."""
    cell = tiny("ResBlock").layer1[0]
    x = images(8, 12)
    everything = ["preprocess1", "edge_1_2", "edge_2_3", "edge_3_4", "edge_2_5", "edge_4_5"]
    assert computed(cell, x, x) == everything
    cell.edge_0_4 = nn.Identity()
    assert computed(cell, x, x) == ["preprocess0", *everything[:3], "edge_0_4", *everything[3:]]
    cell.edge_0_4, cell.edge_4_5 = Zero(), Zero()
    assert computed(cell, x, x) == ["preprocess1", "edge_1_2", "edge_2_5"]
    cell.edge_2_5 = Zero()
    assert computed(cell, x, x) == []
    assert torch.equal(cell(x, x), torch.zeros(4, 4, 8, 8))


def test_a_mixed_cell_computes_all_that_may_become_an_edge():
    model = tiny("ResBlock")
    ssl_adapt.Adaptation(model)
    assert {"preprocess0", "edge_0_2", "edge_0_3", "edge_0_4"} <= set(
        computed(model.layer1[0], images(8, 12), images(8, 12))
    )


def test_unread_weights_and_statistics_stay_as_they_are():
    """Two steps with momentum and weight decay move everything but the preprocessing of input 0."""
    model = tiny("ResBlock")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(images()).square().sum().backward()
        optimizer.step()
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert kept == {name for name in before if "preprocess0" in name}


@pytest.mark.parametrize("choice", ["identity", "none"])
def test_networks_fixed_to_one_choice_run(choice):
    seen = 0
    for genotype in FORMS:
        model = tiny(genotype)
        edges = {spec.name: choice for spec in model.edge_specs()}
        ssl_adapt.apply_architecture(model, ssl_adapt.Architecture("darts", {}, edges))
        logits = model(images(18))
        assert logits.shape == (4, 10)
        assert torch.isfinite(logits).all()
        seen += 1
    assert seen == 7


@pytest.mark.parametrize("sharing", ["full", "cell"])
@pytest.mark.parametrize("genotype", FORMS)
def test_mixed_is_plain_to_the_bit(genotype, sharing):
    """Outputs and gradients, in training and evaluation mode, with drop-path and the auxiliary head."""
    plain, mixed = (tiny(genotype, drop_path_rate=0.3, auxiliary=True) for _ in range(2))
    adaptation = ssl_adapt.Adaptation(mixed, sharing=sharing)
    assert len(adaptation.theta) == {"full": 24, "cell": 16}[sharing]
    for mode in (True, False):
        outputs = []
        for model in (plain, mixed):
            torch.manual_seed(1)
            model.zero_grad()
            output = model.train(mode)(images())
            logits = torch.cat(output, dim=1) if mode else output
            logits.square().sum().backward()
            outputs.append(logits)
        assert torch.equal(*outputs)
        gradients = [{name.replace(".operation", ""): p.grad for name, p in model.named_parameters()}
                     for model in (plain, mixed)]  # fmt: skip
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            if gradient is not None:
                torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("genotype", ["DARTS_V2", "ResBlock"])
def test_theta_gradients_against_finite_differences(genotype):
    """Nothing that backward needs is overwritten, away from the start where every term counts."""
    model = tiny(genotype).double()
    adaptation = ssl_adapt.Adaptation(model)
    for number, theta in enumerate(adaptation.theta_parameters()):
        theta.data = torch.tensor([0.0, 0.3 + 0.01 * number, 0.9 - 0.01 * number], dtype=torch.float64)
    x = images().double()
    with adaptation.architecture_pass():
        model(x).square().sum().backward()
    checked = 0
    for theta in adaptation.theta_parameters()[::3]:
        for entry in (1, 2):
            sides = []
            for step in (1e-6, -1e-6):
                theta.data[entry] += step
                with torch.no_grad(), adaptation.architecture_pass():
                    sides.append(model(x).square().sum().item())
                theta.data[entry] -= step
            expected = (sides[0] - sides[1]) / 2e-6
            assert theta.grad[entry].item() == pytest.approx(expected, rel=1e-4, abs=1e-3)
            checked += 1
    assert checked == 16


def test_fixed_is_mixed_with_one_hot_theta():
    model = tiny("NAT_DARTS").eval()
    adaptation = ssl_adapt.Adaptation(model)
    for number, spec in enumerate(adaptation.edges):
        choice = [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)][number % 4]
        adaptation.theta[spec.name].data = torch.tensor(choice)
    expected = model(images())
    architecture = adaptation.fix()
    assert len(architecture.changed) >= 8
    torch.testing.assert_close(model(images()), expected)
    again = timm.create_model("darts", **architecture.model_args, architecture=architecture.to_dict())
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images()), model(images()))


def test_theta_scale_is_folded_before_drop_path():
    adaptation = ssl_adapt.Adaptation(model := tiny().eval())
    adaptation.theta["layer1.0.edge_0_2"].data = torch.tensor([0.0, 0.0, 0.5])
    expected = model(images())
    adaptation.fix(scale="fold")
    torch.testing.assert_close(model(images()), expected)


def test_drop_path_exempts_identities():
    """At probability near 1 nothing but identities passes: a node of operations is zero, one with a skip is not."""
    edges = (GenotypeEdge("conv_3x3", 1, 2), GenotypeEdge("skip_connect", 1, 3), GenotypeEdge("max_pool_3x3", 1, 3))
    cell = GenotypeCell(CellGenotype(edges, (2, 3)), (4, 4), 4, reduces=False, follows_reduction=False)
    set_drop_path(cell, 1 - 1e-9)
    x = images(8, 4)
    operations, skip = cell(x, x).chunk(2, dim=1)
    assert torch.equal(operations, torch.zeros_like(operations))
    assert torch.equal(skip, cell.preprocess1(x))
    cell.eval()
    assert cell(x, x)[:, :4].abs().sum() > 0


def test_drop_path_exempts_the_identity_of_a_mixed_edge():
    model = tiny("ResBlock", drop_path_rate=0.5)
    adaptation = ssl_adapt.Adaptation(model)
    set_drop_path(model, 1 - 1e-9)
    edge = model.get_submodule("layer1.0.edge_2_3")
    assert isinstance(edge, MixedEdge)
    adaptation.theta["layer1.0.edge_2_3"].data = torch.tensor([0.0, 0.5, 0.5])
    x = images(8, 4)
    assert torch.equal(edge(x), 0.5 * x)


def test_drop_path_rate_reaches_every_operation():
    model = tiny(drop_path_rate=0.25)
    drops = [module for module in model.modules() if isinstance(module, DropPath)]
    computing = [spec for spec in model.edge_specs() if spec.kind == "operation"]
    assert len(drops) == len(computing) > 0
    assert {drop.drop_prob for drop in drops} == {0.25}
    plain = tiny(drop_path_rate=None)  # timm leaves out what is None
    assert {module.drop_prob for module in plain.modules() if isinstance(module, DropPath)} == {0.0}
