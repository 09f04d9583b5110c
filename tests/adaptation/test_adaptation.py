"""Adaptation: sharing, passes, choices, errors."""

import copy
import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
from small_networks import BOTTLENECKS, images, set_theta, small
from torch import nn

import ssl_adapt
from ssl_adapt import Adaptation, Architecture, apply_architecture


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
        ((0.0, 0.3, -0.2), "identity"),
        ((0.0, 0.0, 0.0), "original"),
    ],
)
def test_an_operation_becomes_its_largest_candidate(theta, choice):
    adaptation = Adaptation(small())
    set_theta(adaptation, layer1__0__conv2=theta)
    assert adaptation.derive().edges["layer1.0.conv2"] == choice


def test_an_identity_stays_or_becomes_none():
    adaptation = Adaptation(small())
    set_theta(adaptation, layer1__0__shortcut=(0.0, 1.5, -0.2), layer2__1__shortcut=(0.0, -1.0, -0.1))
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


def test_an_adapted_network_is_not_adapted_again():
    adaptation = Adaptation(model := small())
    with pytest.raises(ValueError, match="still mixed"):
        Adaptation(model)
    set_theta(adaptation, layer1__0__conv2=(1.0, 0.0, 0.0))
    architecture = adaptation.fix()
    assert Architecture.of(model) == architecture
    with pytest.raises(ValueError, match="adapted before"):
        Adaptation(model)
    conv2 = model.get_submodule("layer1.0.conv2")
    apply_architecture(model, architecture)
    assert model.get_submodule("layer1.0.conv2") is conv2, "what has changed in the same way stays as it is"
    other = dataclasses.replace(architecture, edges={**architecture.edges, "layer1.0.conv2": "original"})
    with pytest.raises(ValueError, match=r"was adapted before, edge 'layer1\.0\.conv2' into none"):
        apply_architecture(model, other)


def test_modes_that_the_user_set_survive():
    model = small()
    model.layer1[0].conv1.bn.eval()
    adaptation = Adaptation(model)
    assert not model.layer1[0].conv1.operation.bn.training
    adaptation.fix()
    assert not model.layer1[0].conv1.bn.training
    assert model.layer1[0].conv2.bn.training


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
