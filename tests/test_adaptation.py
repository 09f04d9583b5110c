"""Adaptation: sharing, passes, choices, annealing and fixing."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ssl_adapt
from ssl_adapt import Adaptation, Architecture, apply_architecture
from ssl_adapt.adaptation.adaptation import one_hot
from ssl_adapt.adaptation.cost import count_macs, count_parameters
from ssl_adapt.adaptation.edge import MixedEdge

BOTTLENECKS = {"layers": (2, 2), "width": 4}


def small(name: str = "resnet20", **kwargs: object) -> nn.Module:
    arguments = {"width": 4, "layers": (1, 2), **kwargs}
    return timm.create_model(name, **arguments)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def set_theta(adaptation: Adaptation, **values: tuple[float, float, float]) -> None:
    for name, value in values.items():
        adaptation.theta[name.replace("__", ".")].data = torch.tensor(value)


def random_choices(model: nn.Module, draw) -> dict[str, str]:
    return {spec.name: draw(st.sampled_from(["original", "identity", "none"])) for spec in model.edge_specs()}


def test_full_gives_each_edge_its_own_theta_and_cell_shares_by_place():
    assert len(Adaptation(timm.create_model("resnet20")).theta) == 27
    cell = Adaptation(timm.create_model("resnet20"), sharing="cell")
    assert set(cell.theta) == {f"{t}.{p}" for t in ("normal", "reduction") for p in ("conv1", "conv2", "shortcut")}
    assert len(cell.edges) == 27
    bottlenecks = Adaptation(timm.create_model("resnet50_cifar", width=4), sharing="cell")
    assert len(bottlenecks.edges) == 112
    assert len(bottlenecks.theta) == 14


def test_edges_that_share_theta_have_the_same_kind():
    for name, arguments in (
        ("resnet20", {}),
        ("resnet20", {"shortcut": "B"}),
        ("resnet50_cifar", {"width": 4}),
    ):
        kinds = {}
        for spec in timm.create_model(name, **arguments).edge_specs():
            kinds.setdefault((spec.cell_type, spec.place), set()).add(spec.kind)
        assert len(kinds) >= 6
        assert all(len(kind) == 1 for kind in kinds.values())


def test_shared_theta_gets_the_sum_of_the_gradients():
    model = small(layers=(2, 2)).double()
    full, cell = copy.deepcopy(model), copy.deepcopy(model)
    gradients = {}
    for sharing, network in (("full", full), ("cell", cell)):
        adaptation = Adaptation(network, sharing=sharing)
        for theta in adaptation.theta_parameters():
            theta.data = theta.data.double()
        with adaptation.architecture_pass():
            F.cross_entropy(network(images().double()), torch.arange(4)).backward()
        gradients[sharing] = {name: theta.grad for name, theta in adaptation.theta.items()}
    for group, gradient in gradients["cell"].items():
        parts = [
            gradients["full"][spec.name] for spec in model.edge_specs() if f"{spec.cell_type}.{spec.place}" == group
        ]
        torch.testing.assert_close(gradient, torch.stack(parts).sum(0))


def test_architecture_pass_leaves_everything_but_theta_alone():
    model, projector = small(), nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 3))
    model.stem.conv.weight.requires_grad_(False)  # frozen by the user: stays so
    adaptation = Adaptation(model)
    before = copy.deepcopy({**model.state_dict(), **projector.state_dict()})
    with adaptation.architecture_pass(projector):
        projector(model(images())).sum().square().backward()
    after = {**model.state_dict(), **projector.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in (*model.parameters(), *projector.parameters()))
    assert all(t.grad is not None and t.grad[0] == 0 for t in adaptation.theta_parameters())
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    assert [name for name, flag in trainable.items() if not flag] == ["stem.conv.weight"]
    with adaptation.architecture_pass(projector, update_bn=True):
        projector(model(images()))
    assert not torch.equal(before["stem.bn.running_mean"], model.state_dict()["stem.bn.running_mean"])


def test_architecture_pass_restores_after_an_error():
    adaptation = Adaptation(model := small())
    with pytest.raises(ZeroDivisionError), adaptation.architecture_pass():
        _ = 1 / 0
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(theta.requires_grad for theta in adaptation.theta_parameters())


def test_theta_is_no_parameter_of_the_network():
    adaptation = Adaptation(model := small())
    weights = {id(p) for p in adaptation.weight_parameters()}
    assert weights == {id(p) for p in model.parameters()}
    assert not weights & {id(theta) for theta in adaptation.theta_parameters()}
    assert not any("theta" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("theta", "choice"),
    [
        ((0.0, 0.0, 1.0), "original"),
        ((0.0, 0.5, 0.5), "original"),  # a tie keeps what is there
        ((0.0, 0.6, 0.5), "identity"),
        ((0.0, -0.1, -0.2), "none"),
        ((0.0, 0.0, 0.0), "original"),
    ],
)
def test_an_operation_becomes_its_largest_candidate(theta, choice):
    adaptation = Adaptation(small())
    set_theta(adaptation, layer1__0__conv2=theta)
    assert adaptation.derive().edges["layer1.0.conv2"] == choice


def test_an_identity_stays_or_becomes_none():
    adaptation = Adaptation(small())
    set_theta(adaptation, layer1__0__shortcut=(0.0, 1.5, 1.0), layer2__1__shortcut=(0.0, -1.0, -0.1))
    assert adaptation.derive().changed == {"layer2.1.shortcut": "none"}


def test_a_none_edge_becomes_the_identity_above_one_or_above_the_threshold():
    for rule, threshold, bar in (("literal", 0.0, 1.0), ("threshold", 0.0, 0.0), ("threshold", 0.25, 0.25)):
        adaptation = Adaptation(small("resnet50_cifar", **BOTTLENECKS), none_rule=rule, none_threshold=threshold)
        set_theta(adaptation, layer1__1__null1=(0.0, bar + 0.01, 1.0), layer1__1__null2=(0.0, bar - 0.01, 1.0))
        assert adaptation.derive().changed == {"layer1.1.null1": "identity"}


def test_forbidden_identities_are_never_chosen():
    adaptation = Adaptation(small("resnet50_cifar", **BOTTLENECKS), shape_change="forbid", none_rule="threshold")
    for theta in adaptation.theta_parameters():
        theta.data = torch.tensor([0.0, 9.0, 0.5])
    changing = {spec.name for spec in adaptation.edges if spec.changes_shape}
    assert len(changing) > 5
    assert not changing & set(adaptation.derive().changed)
    adaptation.fix()


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


def test_the_loop_of_the_readme_changes_theta_and_weights():
    torch.manual_seed(0)
    adaptation = Adaptation(model := small())
    weights = torch.optim.SGD(adaptation.weight_parameters(), 0.1)
    thetas = torch.optim.Adam(adaptation.theta_parameters(), 0.05)
    start = copy.deepcopy(model.state_dict())
    x, labels = images(), torch.arange(4)
    for _ in range(3):
        F.cross_entropy(model(x), labels).backward()
        weights.step()
        weights.zero_grad()
        with adaptation.architecture_pass():
            F.cross_entropy(model(x), labels).backward()
        thetas.step()
        thetas.zero_grad()
    assert all(theta[0] == 0 and theta[1] != 0 for theta in adaptation.theta_parameters())
    assert not torch.equal(start["stem.conv.weight"], model.stem.conv.weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Adaptation(nn.Linear(2, 2)), "declares no edges"),
        (lambda: Adaptation(small(), sharing="half"), "sharing='half' is not one of full, cell"),
        (lambda: Adaptation(small(), shape_change="x"), "shape_change='x'"),
        (lambda: Adaptation(small(), none_rule="x"), "none_rule='x'"),
        (lambda: Adaptation(small()).fix("two"), "scale='two' is not one of one, fold"),
        (lambda: ssl_adapt.Architecture.of(Adaptation(small()).model), "still mixed"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_fixing_twice_is_an_error():
    adaptation = Adaptation(small())
    adaptation.fix()
    with pytest.raises(ValueError, match="fixed before"):
        adaptation.fix()
