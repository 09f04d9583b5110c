"""The joint pass gives what the weights' pass and the architecture pass give, in float64."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from small_networks import BOTTLENECKS, images, small
from torch import Tensor, nn

from ssl_adapt import Adaptation, adaptable

pytestmark = pytest.mark.exactness


def create_vit() -> nn.Module:
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=10
    )
    return adaptable(vit, edges=["blocks.*.attn", "blocks.*.mlp"])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": small,
    "option B": lambda: small(shortcut="B"),
    "none edges": lambda: small("resnet20_bottleneck", **BOTTLENECKS),
    "cells": lambda: timm.create_model("resnet20_nat", channels=4, cells=3),
    "darts": lambda: timm.create_model("darts", channels=4, cells=3, num_classes=10),
    "vit": create_vit,
    "convnext": lambda: adaptable(
        timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 4, 8, 8), num_classes=10, patch_size=1)
    ),
}


def adapt(network: nn.Module, **options: object) -> Adaptation:
    """The network in float64 and mixed, at a random theta."""
    adaptation = Adaptation(network.double(), **options)
    network.double()
    for theta in adaptation.theta_parameters():
        theta.data = torch.tensor([0.1, 0.2, 0.9]).double() + 0.3 * torch.randn(3).double()
    return adaptation


def loss_of(network: nn.Module) -> Tensor:
    logits = network(images(6).double())
    return F.cross_entropy(logits[0] if isinstance(logits, tuple) else logits, torch.arange(6))


def gradients(adaptation: Adaptation) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Those of the weights and of theta, which are set to None."""
    both = adaptation.weight_parameters(), adaptation.theta_parameters()
    found = tuple([parameter.grad for parameter in parameters] for parameters in both)
    for parameter in (*both[0], *both[1]):
        parameter.grad = None
    return found


def check(adaptation: Adaptation, backward: Callable[[], None]) -> None:
    """The joint pass of `backward` against the two passes of it, to 1e-12."""
    backward()
    weights, nothing = gradients(adaptation)
    with adaptation.architecture_pass():
        backward()
    at_rest, thetas = gradients(adaptation)
    with adaptation.joint_pass():
        backward()
    found_weights, found_thetas = gradients(adaptation)
    assert not any(theta.requires_grad for theta in adaptation.theta_parameters())
    assert nothing == [None] * len(thetas)
    assert at_rest == [None] * len(weights)
    assert sum(weight is not None for weight in weights) > 10
    for found, expected in zip((*found_weights, *found_thetas), (*weights, *thetas), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    assert sum(float(theta.abs().sum()) for theta in found_thetas if theta is not None) > 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_the_joint_pass_gives_the_gradients_of_both_passes(name):
    torch.manual_seed(0)
    adaptation = adapt(NETWORKS[name]())
    check(adaptation, lambda: loss_of(adaptation.model).backward())


@pytest.mark.parametrize("options", [{"sharing": "cell"}, {"shape_change": "project"}, {"shape_change": "forbid"}])
@pytest.mark.parametrize("name", ["resnet20", "none edges"])
def test_whatever_shares_theta_or_changes_the_shape(name, options):
    torch.manual_seed(0)
    adaptation = adapt(NETWORKS[name](), **options)
    check(adaptation, lambda: loss_of(adaptation.model).backward())


@pytest.mark.parametrize("theta", [(0.0, 0.0, 1.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.0)])
def test_at_the_start_and_where_theta_is_zero(theta):
    torch.manual_seed(0)
    adaptation = adapt(NETWORKS["none edges"]())
    for held in adaptation.theta_parameters()[::2]:
        held.data = torch.tensor(theta).double()
    check(adaptation, lambda: loss_of(adaptation.model).backward())


def test_with_hooks_parts_and_a_teacher():
    torch.manual_seed(0)
    student = NETWORKS["none edges"]()
    teacher = copy.deepcopy(student).double()
    adaptation = adapt(student, followers=[teacher])
    teacher.double()
    seen: list[Tensor] = []
    student.get_submodule("layer1.1.conv2").register_forward_hook(lambda *_: seen.append(_[-1]))

    def backward() -> None:
        for part in images(6).double().split(3):
            with torch.no_grad():
                target = teacher(part)
            F.mse_loss(student(part), target + 1).backward()

    check(adaptation, backward)
    assert len(seen) == 6


def test_a_mixed_network_at_its_start_has_the_loss_of_the_plain_one_to_the_bit():
    torch.manual_seed(0)
    plain = NETWORKS["none edges"]().double()
    mixed = copy.deepcopy(plain)
    adaptation = Adaptation(mixed)
    with adaptation.joint_pass():
        assert torch.equal(loss_of(mixed), loss_of(plain))


def test_theta_rests_again_after_an_error():
    adaptation = Adaptation(small())
    with pytest.raises(ZeroDivisionError), adaptation.joint_pass():
        _ = 1 / 0
    assert not any(theta.requires_grad for theta in adaptation.theta_parameters())
