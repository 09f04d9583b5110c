"""Fixing and annealing: what is left computes what the mixed network did."""

import copy
import math
import re

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import BOTTLENECKS, images, set_theta, small
from torch import nn

from ssl_adapt import Adaptation, Architecture, apply_architecture
from ssl_adapt.adaptation.adaptation import one_hot
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import MixedEdge

pytestmark = pytest.mark.exactness


def random_choices(model: nn.Module, draw) -> dict[str, str]:
    return {spec.name: draw(st.sampled_from(["original", "identity", "none"])) for spec in model.edge_specs()}


@settings(max_examples=25, deadline=None)
@given(data=st.data(), shape_change=st.sampled_from(["pad", "project"]))
def test_fixed_network_equals_the_mixed_one_at_one_hot_theta(data, shape_change):
    """Random architectures, many none: mixed at one-hot theta == fixed == built from the Architecture."""
    torch.manual_seed(0)
    arguments = data.draw(
        st.sampled_from([("resnet20", {}), ("resnet20", {"shortcut": "B"}), ("resnet50_cifar", BOTTLENECKS)])
    )
    mixed = small(arguments[0], **arguments[1])
    plain = copy.deepcopy(mixed)
    adaptation = Adaptation(mixed, shape_change=shape_change, none_rule="threshold")
    for name, choice in random_choices(plain, data.draw).items():
        adaptation.theta[name].data = torch.tensor(one_hot(choice))
    x = images()
    expected = mixed.eval()(x)
    architecture = adaptation.fix()
    torch.testing.assert_close(mixed(x), expected, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, MixedEdge) for module in mixed.modules())
    assert Architecture.of(mixed).edges == architecture.edges
    apply_architecture(plain, Architecture.from_json(architecture.to_json()))
    assert list(plain.state_dict()) == list(mixed.state_dict())
    plain.load_state_dict(mixed.state_dict())
    assert torch.equal(plain.eval()(x), mixed(x))


def test_removed_operations_are_really_gone():
    model = timm.create_model("resnet20")
    adaptation = Adaptation(model)
    set_theta(adaptation, layer1__1__conv1=(0.0, 1.0, 0.0), layer3__2__conv2=(1.0, 0.0, 0.0))
    x = torch.zeros(1, 3, 32, 32)
    parameters, macs = count_parameters(model), count_macs(model, x)
    adaptation.fix()
    removed_conv1, removed_conv2 = 16 * 16 * 9, 64 * 64 * 9
    assert parameters - count_parameters(model) == removed_conv1 + 2 * 16 + removed_conv2 + 2 * 64
    assert macs - count_macs(model, x) == removed_conv1 * 32 * 32 + removed_conv2 * 8 * 8


def test_fold_puts_theta_into_the_batchnorm():
    model = small().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias)
    adaptation = Adaptation(model)
    for spec in adaptation.edges:
        if spec.kind == "operation":
            adaptation.theta[spec.name].data = torch.tensor([0.0, 0.0, 0.8])
    expected = model(images())
    folded, dropped = copy.deepcopy(adaptation), copy.deepcopy(adaptation)
    folded.fix("fold")
    dropped.fix("one")
    torch.testing.assert_close(folded.model(images()), expected)
    assert not torch.allclose(dropped.model(images()), expected)


def test_annealing_ends_where_the_fix_changes_nothing():
    adaptation = Adaptation(model := small("resnet50_cifar", **BOTTLENECKS), none_rule="threshold")
    generator = torch.Generator().manual_seed(3)
    for theta in adaptation.theta_parameters():
        theta.data += torch.randn(3, generator=generator) * torch.tensor([0.0, 1.0, 1.0])
    target = adaptation.derive()
    assert len(set(target.edges.values())) == 3
    starts = {name: theta.detach().clone() for name, theta in adaptation.theta.items()}
    for fraction in (0.25, 0.5, 1.0):
        adaptation.anneal(fraction)
        assert adaptation.derive() == target
        for name, theta in adaptation.theta.items():
            wanted = torch.lerp(starts[name], torch.tensor(one_hot(target.edges[name])), fraction)
            torch.testing.assert_close(theta.detach(), wanted)
    before = model.eval()(images())
    assert adaptation.fix() == target
    torch.testing.assert_close(model(images()), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharing", ["full", "cell"])
@pytest.mark.parametrize("shape_change", ["pad", "project", "forbid"])
def test_annealing_is_exact_for_every_sharing_and_shape_change(sharing, shape_change):
    model = small("resnet50_cifar", layers=(2, 3), width=4)
    adaptation = Adaptation(model, sharing=sharing, shape_change=shape_change, none_rule="threshold")
    for theta in adaptation.theta_parameters():
        theta.data = torch.tensor([0.0, 0.6, 0.5])
    adaptation.anneal(1.0)
    before = model.eval()(images())
    assert adaptation.fix().changed
    torch.testing.assert_close(model(images()), before, rtol=1e-5, atol=1e-6)


def test_state_goes_on_in_the_middle_of_annealing():
    first, second = (Adaptation(small()) for _ in range(2))
    set_theta(first, layer1__0__conv2=(0.0, 0.7, 0.5))
    first.anneal(0.5)
    second.load_state_dict(first.state_dict())
    for adaptation in (first, second):
        adaptation.anneal(0.75)
    for a, b in zip(first.theta_parameters(), second.theta_parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="other edges"):
        second.load_state_dict(Adaptation(small(), sharing="cell").state_dict())


def test_fixing_twice_is_an_error():
    adaptation = Adaptation(small())
    adaptation.fix()
    with pytest.raises(ValueError, match="fixed before"):
        adaptation.fix()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("sharing", "group", "edges"),
    [
        ("full", "layer1.0.conv2", "1 edge(s): 'layer1.0.conv2' (the"),
        ("cell", "normal.conv2", "2 edge(s): 'layer1.0.conv2', 'layer2.1.conv2' (the"),
    ],
)
def test_theta_that_is_not_finite_chooses_nothing(value, sharing, group, edges):
    """It is refused with the edges' names before anything is changed, and an earlier theta makes all well again."""
    adaptation = Adaptation(model := small(), sharing=sharing)
    before, modules = copy.deepcopy(adaptation.state_dict()), dict(model.named_modules())
    adaptation.theta[group].data[1] = value
    broken = adaptation.state_dict()
    said = re.escape(f"theta is not finite at {edges} first is [0.0, {value}, 1.0]); go back to a theta from before")
    for call in (adaptation.fix, lambda: adaptation.fix("fold"), adaptation.derive, lambda: adaptation.anneal(0.5)):
        with pytest.raises(ValueError, match=said):
            call()
        assert dict(model.named_modules()) == modules
        assert adaptation.theta[group].tolist() == pytest.approx([0.0, value, 1.0], nan_ok=True)
    adaptation.load_state_dict(before)
    for state in (broken, {**before, "anneal_start": broken["theta"]}):
        with pytest.raises(ValueError, match=r"is not finite at .*; load a state from before it was"):
            adaptation.load_state_dict(state)
    assert all(torch.equal(theta, before["theta"][name]) for name, theta in adaptation.theta.items())
    assert not adaptation.fix().changed


def test_a_step_on_a_broken_gradient_is_told_at_the_fix():
    adaptation = Adaptation(model := small())
    thetas = torch.optim.Adam(adaptation.theta_parameters(), 0.05)
    with adaptation.architecture_pass():
        (model(images()) * math.nan).sum().backward()
    thetas.step()
    with pytest.raises(ValueError, match=r"theta is not finite at 9 edge\(s\): 'layer1.0.conv1', .*, \.\.\. \("):
        adaptation.fix()
    assert sum(isinstance(module, MixedEdge) for module in model.modules()) == 9


@pytest.mark.parametrize("fraction", [math.nan, -0.1, 1.1])
def test_annealing_beyond_its_ends_is_an_error(fraction):
    adaptation = Adaptation(small())
    with pytest.raises(ValueError, match=re.escape(f"fraction={fraction!r} is not in 0..1")):
        adaptation.anneal(fraction)
    assert not adaptation.derive().changed


def test_edges_are_fixed_a_few_at_a_time():
    """What is not mixed stays what it is; the architecture is the same as if all had been chosen at once."""
    torch.manual_seed(0)
    model, other = small(granularity="branch"), small(granularity="branch")
    other.load_state_dict(model.state_dict())
    first = Adaptation(model, only=["layer2.1"], choices={"layer2.1": "identity"})
    assert [state.spec.name for state in first.states()] == ["layer2.1"]
    assert len(first.theta_parameters()) == 1
    first.fix()
    with pytest.raises(ValueError, match="was adapted before"):
        Adaptation(model, only=["layer2.1"])
    with pytest.raises(ValueError, match=r"no edge 'layer2\.0'"):
        Adaptation(model, only=["layer2.0"])
    second = Adaptation(model, only=["layer1.0"], choices={"layer1.0": "identity"})
    assert second.derive().changed == {"layer1.0": "identity", "layer2.1": "identity"}
    second.anneal(1.0)
    mixed = model(images())
    architecture = second.fix()
    assert torch.equal(model(images()), mixed)
    expected = Adaptation(other, choices={"layer1.0": "identity", "layer2.1": "identity"}).fix()
    assert architecture.to_json() == expected.to_json()
    assert torch.equal(model(images()), other(images()))
