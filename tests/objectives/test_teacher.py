"""BYOL's teacher: an average of the network, without gradients, whose edges follow theta."""

import math

import pytest
import timm
import torch

from ssl_adapt import Adaptation, Architecture
from ssl_adapt.objectives import Byol
from ssl_adapt.views import Views


def create(momentum: float = 0.9) -> Byol:
    torch.manual_seed(0)
    backbone = timm.create_model("resnet20", num_classes=0, width=4, layers=[1, 1])
    sizes = {"projector_hidden": 16, "projector_out": 8, "predictor_hidden": 16}
    return Byol(backbone, Views([lambda pixels: pixels] * 2), momentum=momentum, **sizes)


@pytest.mark.parametrize("progress", [0.25, 1.0])
def test_it_moves_towards_the_network_by_the_cosine_of_the_paper(progress: float) -> None:
    objective = create()
    network, teacher = objective.network, objective.network.teacher
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight += 1
    before = [weight.clone() for weight in teacher.parameters()]
    objective.after_step(progress)
    kept = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
    students = [*network.backbone.parameters(), *network.projector.parameters()]
    assert len(students) == len(before) > 10
    for old, new, student in zip(before, teacher.parameters(), students, strict=True):
        torch.testing.assert_close(new, kept * old + (1 - kept) * student)


def test_gradients_reach_the_network_and_not_the_teacher() -> None:
    objective = create()
    views = [torch.randn(6, 3, 8, 8) for _ in range(2)]
    objective.loss(objective.forward(objective.network, views)).backward()
    with_gradient = {name for name, weight in objective.network.named_parameters() if weight.grad is not None}
    assert with_gradient == {
        name for name, _ in objective.network.named_parameters() if not name.startswith("teacher.")
    }


def test_learnt_identities_start_alike_and_are_fixed_alike() -> None:
    objective = create()
    network, teacher = objective.network, objective.network.teacher
    adaptation = Adaptation(network.backbone, shape_change="project", followers=[teacher.backbone])
    for mine, theirs in zip(network.backbone.parameters(), teacher.backbone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert (mine.requires_grad, theirs.requires_grad) == (True, False)
    with torch.no_grad():
        for theta in adaptation.theta_parameters():
            theta.copy_(torch.tensor([0.0, 1.0, 0.0]))
    architecture = adaptation.fix()
    assert architecture.changed
    assert Architecture.of(teacher.backbone) == architecture
    objective.after_step(0.5)  # whose weights still stand in pairs


def test_a_follower_of_another_kind_is_refused() -> None:
    model, other = (timm.create_model("resnet20", num_classes=0, width=4, layers=layers) for layers in ([1], [2]))
    with pytest.raises(ValueError, match="a follower has other edges"):
        Adaptation(model, followers=[other])
