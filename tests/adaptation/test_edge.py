"""Edges against eq. 1 of the paper and the closed forms that follow from it."""

import copy
from itertools import product

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

import ssl_adapt
from ssl_adapt.adaptation.edge import EdgeSpec, MixedEdge, Pad, Project, Zero, last_norm_name
from ssl_adapt.backbones.operations import create_conv_bn, sum_edges

pytestmark = pytest.mark.exactness

NETWORKS = {
    "resnet20": {"name": "resnet20", "width": 8},
    "resnet20 option B": {"name": "resnet20", "width": 8, "shortcut": "B"},
    "bottlenecks": {"name": "resnet50_cifar", "layers": (2, 2, 1), "width": 8},
}


def create(key: str, **kwargs: object) -> nn.Module:
    arguments = {**NETWORKS[key], **kwargs}
    return timm.create_model(arguments.pop("name"), **arguments)


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 16, 16, generator=generator).to(dtype), torch.tensor([0, 3, 1, 9])


def by_eq_1(edge: MixedEdge, x: torch.Tensor) -> torch.Tensor:
    """The edge term by term, as the paper writes it, with nothing folded, skipped or joined."""
    none, identity, same = edge._theta[0]
    spec = edge.spec
    zero = Zero(spec.out_channels, spec.stride)(x)
    identity_output = edge.operation(x) if spec.kind == "identity" else zero
    if spec.kind != "identity" and edge.identity is not None:
        identity_output = edge.identity(x)
    return none * zero + identity * identity_output + same * edge.operation(x)


def spec_of(kind: str, in_channels: int = 4, out_channels: int = 4, stride: int = 1) -> EdgeSpec:
    return EdgeSpec("edge", kind, kind, in_channels, out_channels, stride, "cell", "normal", "edge", "in", "out")


@pytest.mark.parametrize("key", NETWORKS)
@pytest.mark.parametrize("shape_change", ["pad", "project", "forbid"])
def test_mixed_is_plain_to_the_bit_at_the_start(key, shape_change):
    plain = create(key)
    mixed = copy.deepcopy(plain)
    ssl_adapt.Adaptation(mixed, shape_change=shape_change)
    x, labels = batch()
    for mode in (True, False):
        assert torch.equal(plain.train(mode)(x), mixed.train(mode)(x))
    F.cross_entropy(plain.train()(x), labels).backward()
    F.cross_entropy(mixed.train()(x), labels).backward()
    gradients = {name: p.grad for name, p in mixed.named_parameters() if ".identity." not in name}
    expected = [parameter.grad for parameter in plain.parameters()]
    assert len(gradients) == len(expected) > 20
    for found, wanted in zip(gradients.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", NETWORKS)
@pytest.mark.parametrize("shape_change", ["pad", "project", "forbid"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_passes_equal_eq_1(key, shape_change, layout):
    """Values and gradients at a random theta, in float64, against the naive form under plain autograd."""
    torch.manual_seed(0)
    network = create(key).double().to(memory_format=layout)
    adaptation = ssl_adapt.Adaptation(network, shape_change=shape_change)
    network.double()
    for theta in adaptation.theta_parameters():
        theta.data = torch.tensor([0.1, 0.2, 0.9]).double() + 0.3 * torch.randn(3).double()
    x, labels = batch(torch.float64)
    x = x.contiguous(memory_format=layout)

    def passes() -> list[torch.Tensor]:
        loss = F.cross_entropy(network(x), labels)
        loss.backward()
        found = [loss.detach(), *(p.grad for p in adaptation.weight_parameters())]
        assert all(theta.grad is None for theta in adaptation.theta_parameters())
        for parameter in adaptation.weight_parameters():
            parameter.grad = None
        with adaptation.architecture_pass():
            loss = F.cross_entropy(network(x), labels)
            loss.backward()
        assert all(parameter.grad is None for parameter in adaptation.weight_parameters())
        thetas = adaptation.theta_parameters()
        found += [loss.detach(), *(torch.zeros(3).double() if t.grad is None else t.grad for t in thetas)]
        for theta in thetas:
            theta.grad = None
        return found

    fast = passes()
    edges = [module for module in network.modules() if isinstance(module, MixedEdge)]
    calls = []
    for edge in edges:
        edge.forward = lambda x, edge=edge: calls.append(edge) or by_eq_1(edge, x)
    naive = passes()
    assert len(calls) == 2 * len(edges) > 0
    assert len(fast) == len(naive) > 40
    for found, wanted in zip(fast, naive, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_closed_forms_of_the_gradient():
    """d none = 0; d identity = <g, x>; d same = <g, op(x)>; equal ones for an identity; none for a none edge."""
    torch.manual_seed(0)
    x, g = torch.randn(2, 4, 6, 6).double(), torch.randn(2, 4, 6, 6).double()
    op = create_conv_bn(4, 4, 3).double()
    cases = {
        "operation": (op, [0.0, (g * x).sum(), (g * op(x)).sum()]),
        "identity": (nn.Identity(), [0.0, (g * x).sum(), (g * x).sum()]),
        "none": (Zero(4, 1), [0.0, (g * x).sum(), 0.0]),
    }
    for kind, (operation, expected) in cases.items():
        theta = nn.Parameter(torch.tensor([0.3, 0.2, 0.7]).double())
        (MixedEdge(spec_of(kind), operation, theta, "pad")(x) * g).sum().backward()
        torch.testing.assert_close(theta.grad, torch.stack([torch.as_tensor(e).detach() for e in expected]).double())
        assert theta.grad[0] == 0


@pytest.mark.parametrize("kind", ["none", "operation"])
@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), [(8, 4, 1), (4, 8, 1), (4, 4, 2), (8, 4, 2)])
def test_a_padded_identity_keeps_activations_and_gradients_channels_last(kind, in_channels, out_channels, stride):
    """What mixes two memory formats takes several times as long."""
    torch.manual_seed(0)
    operation = (
        create_conv_bn(in_channels, out_channels, 3, stride) if kind == "operation" else Zero(out_channels, stride)
    )
    theta = nn.Parameter(torch.tensor([0.0, 0.5, 0.75]))
    edge = MixedEdge(spec_of(kind, in_channels, out_channels, stride), operation, theta, "pad")
    edge.to(memory_format=torch.channels_last)
    x = torch.randn(2, in_channels, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradients = []
    seen = x * 1
    seen.register_hook(gradients.append)
    beside = MixedEdge(spec_of("operation"), create_conv_bn(out_channels, out_channels, 3), theta, "pad")
    other = torch.randn(2, out_channels, 6 // stride, 6 // stride).contiguous(memory_format=torch.channels_last)
    output = sum_edges((beside.to(memory_format=torch.channels_last), other), (edge, seen))
    output.square().sum().backward()
    for tensor in (output, *gradients):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert len(gradients) == 1


def test_zero_is_zero_even_for_infinite_inputs():
    x = torch.full((1, 3, 5, 5), torch.inf)
    assert torch.equal(Zero(4, 2)(x), torch.zeros(1, 4, 3, 3))


@pytest.mark.parametrize(("in_channels", "out_channels"), [(4, 6), (6, 4), (4, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("px", [7, 8])
def test_pad_keeps_values_and_has_the_shape_of_a_convolution(in_channels, out_channels, stride, px):
    x = torch.randn(2, in_channels, px, px)
    padded = Pad(in_channels, out_channels, stride)(x)
    assert padded.shape == nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)(x).shape
    kept = min(in_channels, out_channels)
    assert torch.equal(padded[:, :kept], x[:, :kept, ::stride, ::stride])
    assert not padded[:, kept:].any()
    assert padded.shape == Zero(out_channels, stride)(x).shape == Project(in_channels, out_channels, stride)(x).shape


def test_nodes_sum_their_edges_and_skip_zero():
    x = torch.randn(2, 4, 5, 5)
    double = nn.Conv2d(4, 4, 1, bias=False)
    nn.init.dirac_(double.weight)
    double.weight.data *= 2
    torch.testing.assert_close(sum_edges((double, x), (nn.Identity(), x)), 3 * x)
    assert torch.equal(sum_edges((Zero(4, 1), x), (nn.Identity(), x)), x)
    assert torch.equal(sum_edges((Zero(4, 1), x), (Zero(4, 1), x)), torch.zeros_like(x))


def test_sums_of_mixed_and_plain_edges_do_not_overwrite_what_others_hold():
    """Only the output of a mixed edge is written over: every order of kinds gives the plain sum."""
    x = torch.randn(2, 4, 5, 5)
    kept = x.clone()
    seen = 0
    for kinds in product(["mixed operation", "mixed identity", "plain identity"], repeat=3):
        edges = []
        for kind in kinds:
            operation = nn.Sequential(nn.Tanh()) if kind == "mixed operation" else nn.Identity()
            theta = nn.Parameter(torch.tensor([0.0, 0.25, 0.5]))
            name = "operation" if kind == "mixed operation" else "identity"
            mixed = MixedEdge(spec_of(name), operation, theta, "pad")
            edges.append(operation if kind == "plain identity" else mixed)
        values = {
            "mixed operation": 0.5 * x.tanh() + 0.25 * x,
            "mixed identity": 0.75 * x,
            "plain identity": x,
        }
        leaf = x.clone().requires_grad_()
        total = sum_edges(*((edge, leaf) for edge in edges))
        torch.testing.assert_close(total, sum(values[kind] for kind in kinds))
        total.sum().backward()
        slopes = {
            "mixed operation": 0.75 - 0.5 * x.tanh() ** 2,
            "mixed identity": 0.75,
            "plain identity": 1.0,
        }
        torch.testing.assert_close(leaf.grad, torch.zeros_like(x) + sum(slopes[kind] for kind in kinds))
        assert torch.equal(leaf, kept)
        seen += 1
    assert seen == 27


def test_the_scale_is_folded_into_a_final_batchnorm_only():
    assert last_norm_name(create_conv_bn(3, 4, 3)) == "bn"
    assert last_norm_name(nn.Sequential(nn.ReLU(), create_conv_bn(3, 4, 3))) == "1.bn"
    assert last_norm_name(nn.Sequential(create_conv_bn(3, 4, 3), nn.ReLU())) is None
    assert last_norm_name(nn.Sequential(nn.BatchNorm2d(4, affine=False))) is None
    assert last_norm_name(nn.Identity()) is None
    assert last_norm_name(nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4))) is None, "an activation follows"


def test_operations_that_return_another_precision():
    """As a LayerNorm under autocast does: float32 from a bfloat16 input."""
    x = torch.randn(2, 4, 5, 5).bfloat16().requires_grad_()
    theta = nn.Parameter(torch.tensor([0.0, 0.5, 1.0]))

    class Upcast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float() * 2

    MixedEdge(spec_of("operation"), Upcast(), theta, "pad")(x).sum().backward()
    assert theta.grad[1].item() == pytest.approx(x.float().sum().item(), rel=1e-2)


def test_half_precision_gradient_of_theta_is_summed_in_float32():
    x = torch.full((64, 4, 16, 16), 0.1).bfloat16()
    theta = nn.Parameter(torch.tensor([0.0, 0.0, 1.0]))
    MixedEdge(spec_of("identity"), nn.Identity(), theta, "pad")(x).sum().backward()
    assert theta.grad[1].item() == pytest.approx(x.double().sum().item(), rel=1e-2)
