"""Hooks on a mixed network see the activations and gradients of eq. 1, as tools like Grad-CAM expect."""

import copy
import types

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt import Adaptation
from ssl_adapt.adaptation.edge import EdgeSpec, MixedEdge

NETWORKS = {
    "resnet20": {"width": 4, "layers": (1, 2)},
    "resnet20_bottleneck": {"width": 4, "layers": (1, 2)},
    "resnet20_nat": {"channels": 4, "cells": 3},
    "mobilenetv2_cifar": {"width": 0.125},
    "darts": {"channels": 4, "cells": 3},
}


def by_eq_1(edge: MixedEdge, x: Tensor) -> Tensor:
    """The edge term by term, in ordinary operations."""
    _, theta_id, theta_same = edge._theta[0]
    if edge.spec.kind == "identity":
        return (theta_id + theta_same) * edge.operation(x)
    same = theta_same * edge.operation(x)
    return same if edge.identity is None else same + theta_id * edge.identity(x)


def create(name: str, layout: torch.memory_format, *, at_start: bool) -> tuple[Adaptation, Adaptation]:
    """A mixed network in float64, and the same whose edges are computed by eq. 1 as it is written."""
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3, **NETWORKS[name]).double().to(memory_format=layout)
    adaptations = [Adaptation(copy.deepcopy(plain)) for _ in range(2)]
    for first, second in zip(*(adaptation.theta_parameters() for adaptation in adaptations), strict=True):
        values = first.detach().double() if at_start else torch.tensor([0.1, 0.2, 0.9]) + 0.3 * torch.randn(3).double()
        first.data, second.data = values.clone(), values.clone()
    for module in adaptations[1].model.modules():
        if isinstance(module, MixedEdge):
            module.forward = types.MethodType(by_eq_1, module)
    return adaptations[0], adaptations[1]


class Recorder:
    """Keeps what hooks of the given kinds see, without copying it, as Grad-CAM tools do."""

    def __init__(self, modules: dict[str, nn.Module], kinds: set[str]) -> None:
        self.kept: list[tuple[str, Tensor]] = []
        self.kinds = kinds
        for name, module in modules.items():
            if "forward pre" in kinds:
                module.register_forward_pre_hook(lambda _, inputs, name=name: self.keep(f"{name} input", *inputs))
            if kinds & {"forward", "retain_grad", "tensor"}:
                module.register_forward_hook(lambda _, __, output, name=name: self.keep_output(name, output))
            if "full backward" in kinds:
                module.register_full_backward_hook(
                    lambda _, inputs, outputs, name=name: self.keep(f"{name} gradient", *inputs, *outputs)
                )

    def keep(self, name: str, *tensors: Tensor | None) -> None:
        self.kept += [(f"{name} {index}", tensor) for index, tensor in enumerate(tensors) if tensor is not None]

    def keep_output(self, name: str, output: Tensor) -> None:
        self.keep(f"{name} output", output)
        if "tensor" in self.kinds and output.requires_grad:
            output.register_hook(lambda gradient: self.keep(f"{name} gradient of output", gradient))
        if "retain_grad" in self.kinds and output.requires_grad:
            output.retain_grad()

    def tensors(self) -> list[tuple[str, Tensor]]:
        """All that was kept, by name, and the gradients that tensors retained."""
        retained = [(f"{name} retained", t.grad) for name, t in self.kept if t.requires_grad and t.retains_grad]
        return sorted([(n, t.detach()) for n, t in [*self.kept, *retained] if t is not None], key=lambda kept: kept[0])


def hooked(network: nn.Module, where: str) -> dict[str, nn.Module]:
    """The modules that get hooks: all, those of no edge, or all of every third edge and those of no edge."""
    specs = list(network.edge_specs())
    free = {"everywhere": 0, "outside the edges": len(specs), "some edges": len(specs)}[where]
    names = [spec.name for spec in specs[:free] if where != "some edges" or specs.index(spec) % 3]
    modules = dict(network.named_modules())
    return {name: m for name, m in modules.items() if not any(name == n or name.startswith(f"{n}.") for n in names)}


def check(name: str, layout: torch.memory_format, where: str, kinds: set[str], *, at_start: bool = False) -> None:
    """Everything kept in the weights' pass and in the architecture pass, and all gradients, equal those of eq. 1."""
    x = torch.randn(2, 3, 8, 8).double().contiguous(memory_format=layout)
    found, wanted = [], []
    for adaptation, kept in zip(create(name, layout, at_start=at_start), (found, wanted), strict=True):
        recorder = Recorder(hooked(adaptation.model, where), kinds)
        F.cross_entropy(adaptation.model(x), torch.tensor([0, 2])).backward()
        with adaptation.architecture_pass():
            F.cross_entropy(adaptation.model(x), torch.tensor([0, 2])).backward()
        parameters = [*adaptation.model.named_parameters(), *adaptation.theta.items()]
        kept += recorder.tensors() + [(name, p.grad) for name, p in parameters if p.grad is not None]
    assert [name for name, _ in found] == [name for name, _ in wanted]
    assert len(found) > 80
    for (name, tensor), (_, expected) in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            tensor, expected, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


ALL_KINDS = {"forward pre", "forward", "full backward", "retain_grad", "tensor"}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # the stem, whose input is the images
@pytest.mark.parametrize("where", ["everywhere", "outside the edges", "some edges"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NETWORKS)
def test_hooks_see_the_activations_and_gradients_of_eq_1(name, layout, where):
    check(name, layout, where, ALL_KINDS)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("kind", sorted(ALL_KINDS))
@pytest.mark.parametrize("at_start", [True, False])
def test_each_kind_of_hook_alone(kind, at_start):
    check("resnet20_bottleneck", torch.channels_last, "everywhere", {kind}, at_start=at_start)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("part", ["", ".operation", ".operation.conv", ".operation.bn", ".identity"])
@pytest.mark.parametrize("register", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_one_hook_anywhere_in_an_edge_is_enough(part, register):
    adaptation, _ = create("resnet20", torch.contiguous_format, at_start=False)
    edge = adaptation.model.get_submodule("layer1.0.conv2")
    assert not edge.is_watched()
    module = adaptation.model.get_submodule(f"layer1.0.conv2{part}")
    handle = getattr(module, f"register_{register}_hook")(lambda *_: None)
    assert edge.is_watched()
    assert not adaptation.model.get_submodule("layer1.0.conv1").is_watched()
    adaptation.model(torch.randn(2, 3, 8, 8).double()).sum().backward()
    handle.remove()
    assert not edge.is_watched()


def test_global_hooks_and_replaced_forwards_count():
    adaptation, _ = create("resnet20", torch.contiguous_format, at_start=False)
    edge = adaptation.model.get_submodule("layer1.0.conv2")
    outputs = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, _, output: outputs.append((module, output)))
    adaptation.model(torch.randn(2, 3, 8, 8).double())
    handle.remove()
    assert edge in dict(outputs)
    assert not edge.is_watched()
    edge.forward = lambda x: torch.zeros_like(x)  # as tools do that wrap a module
    assert edge.is_watched()


class Keep(nn.Module):
    """The identity, which keeps what it saw and the gradient of it, as an operation's own code may."""

    commutes_with_scale = True

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        if x.requires_grad:
            x.register_hook(lambda gradient: setattr(self, "gradient", gradient))
        return x


def test_tensors_that_an_operation_keeps_are_not_written_over():
    torch.manual_seed(0)
    first, last = Keep(), Keep()
    operation = nn.Sequential(first, nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), last).double()
    theta = nn.Parameter(torch.tensor([0.0, 0.5, 0.75]).double())
    spec = EdgeSpec("edge", "operation", "conv", 4, 4, 1, "cell", "normal", "edge", "in", "out")
    x, g = (torch.randn(2, 4, 6, 6).double().requires_grad_() for _ in range(2))
    edge = MixedEdge(spec, operation, theta, "pad")
    (edge(x) * g.detach()).sum().backward()
    seen = first.x, first.gradient, last.x, last.gradient
    scaled = 0.75 * operation(x)
    (through_operation,) = torch.autograd.grad(scaled, x, g.detach())
    for found, expected in zip(seen, (x, through_operation, scaled, g), strict=True):
        torch.testing.assert_close(found.detach(), expected.detach())
    torch.testing.assert_close(x.grad, through_operation + 0.5 * g.detach())
