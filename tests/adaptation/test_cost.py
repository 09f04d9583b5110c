"""Costs are those of the network as it computes, and counting leaves it as it was."""

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.cost import copy_to_meta, count_macs


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet20", {"width": 4}),
        ("mobilenetv3_small_050", {}),  # timm's BatchNorm with an activation in it
        ("efficientnet_b0", {}),
        ("convnext_atto", {"depths": (1, 1, 1, 1)}),
        ("poolformer_s12", {}),
    ],
)
def test_multiply_adds_are_those_of_a_pass_on_the_cpu(name, args):
    model = timm.create_model(name, num_classes=3, **args).eval()
    image = torch.randn(1, 3, 32, 32)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    state = {key: value.clone() for key, value in model.train().state_dict().items()}
    assert count_macs(model, image) == counter.get_total_flops() // 2 > 0
    assert model.training
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_attention_is_counted_whatever_kernel_computes_it():
    """A token has 4 * 24^2 multiply-adds of projections, 8 * 24^2 of the MLP, and 2 * 24 with every token."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=24, num_classes=0)
    assert count_macs(model, torch.zeros(1, 3, 32, 32)) == 4 * 24 * 3 * 16**2 + 2 * 5 * (12 * 24**2 + 2 * 5 * 24)


def test_a_mixed_network_is_counted_with_all_that_it_computes():
    model = timm.create_model("resnet20", width=4, layers=[1, 2])
    image = torch.zeros(1, 3, 8, 8)
    plain = count_macs(model, image)
    Adaptation(model, shape_change="project")
    assert count_macs(model, image) > plain, "the projections are computed too"


def test_a_copy_on_meta_shares_what_the_network_shares():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    copy = copy_to_meta(model)
    assert copy[1].weight is copy[0].weight is not model[0].weight
    assert [(p.is_meta, p.requires_grad) for p in copy.parameters()] == [
        (True, p.requires_grad) for p in model.parameters()
    ]
    assert all(buffer.is_meta for buffer in copy.buffers())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
