"""What timm asks of a model, for every network that we register, and for a network of timm's with edges."""

import functools
import math
from copy import deepcopy

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models.feature_extraction import create_feature_extractor

from ssl_adapt import Adaptation, adaptable
from ssl_adapt.adaptation.architecture import model_args
from ssl_adapt.training.recomputation import buffers_kept

STAGES = {"width": 4, "layers": [1, 2]}
CELLS = {"channels": 4, "cells": 3}
NARROW = {  # name -> arguments that make it small
    **dict.fromkeys(("resnet20", "resnet20_bottleneck", "resnet50_cifar"), STAGES),
    **dict.fromkeys(("darts", "darts_cifar", "darts24_ssl"), CELLS),
    **dict.fromkeys(("resnet20_nat", "mobilenetv2_nat", "resnet50_nat"), CELLS),
    "mobilenetv2_cifar": {"settings": [[1, 8, 1, 1], [6, 8, 2, 1], [6, 16, 2, 2]]},
    **{f"proxyless_{target}{end}": {"width": 0.1} for target in ("mobile", "gpu", "cpu") for end in ("", "_cifar")},
    "adaptable_timm": {},
}
# None edges alone leave the first input of their cells, so that nothing reads what brings it to the cell's width.
UNREAD = {"resnet20_nat", "mobilenetv2_nat", "resnet50_nat"}
ours = pytest.mark.parametrize("name", NARROW)


@functools.cache
def adaptable_args():
    return model_args(adaptable(timm.create_model("resnet10t")))


def create(name, *, narrow=True, **kwargs):
    arguments = adaptable_args() if name == "adaptable_timm" else NARROW[name] if narrow else {}
    torch.manual_seed(0)
    return timm.create_model(name, **arguments, **kwargs)


def images(count=2, channels=3, height=32, width=32):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_every_network_is_asked():
    registered = {
        name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("ssl_adapt.")
    }
    assert registered == set(NARROW)
    assert len(NARROW) == 17


@ours
def test_the_configuration_is_complete_and_true(name):
    """At full width: timm reads names of parameters, sizes and classes off it."""
    arguments = adaptable_args() if name == "adaptable_timm" else {}
    with torch.device("meta"):
        model = timm.create_model(name, **arguments).eval()
        cfg = model.pretrained_cfg
        features = model.forward_features(torch.zeros(1, *cfg["input_size"]))
    missing = [key for key in ("mean", "std", "crop_pct", "interpolation") if cfg[key] is None]
    assert not missing
    assert features.shape == (1, model.num_features, *cfg["pool_size"])
    state = model.state_dict()
    assert state[f"{cfg['classifier']}.weight"].shape == (cfg["num_classes"], model.head_hidden_size)
    assert state[f"{cfg['first_conv']}.weight"].shape[1] == cfg["input_size"][0]
    assert model.num_classes == cfg["num_classes"]
    if name != "adaptable_timm":  # which no one can name without its base
        assert timm.get_pretrained_cfg_value(name, "pool_size") == cfg["pool_size"]


@ours
def test_features_head_and_classifier(name):
    model, x = create(name, num_classes=5, drop_rate=0.1).eval(), images()
    features = model.forward_features(x)
    logits, pooled = model.forward_head(features), model.forward_head(features, pre_logits=True)
    assert torch.equal(model(x), logits)
    assert (logits.shape, pooled.shape) == ((2, 5), (2, model.head_hidden_size))
    assert isinstance(model.get_classifier(), nn.Linear)
    model.reset_classifier(7)
    assert (model(x).shape, model.num_classes) == ((2, 7), 7)
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    assert model.num_classes == 0
    model.reset_classifier(0, "")
    assert torch.equal(model(x), features)
    unpooled = create(name, num_classes=0, global_pool="").eval()
    assert unpooled(x).shape == features.shape


@ours
def test_feature_maps(name):
    """As `forward_intermediates` and `features_only` give them: channels and sizes are those of `feature_info`."""
    model, x = create(name).eval(), images(height=64, width=64)
    expected = [(info["num_chs"], math.ceil(64 / info["reduction"])) for info in model.feature_info]
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    assert [(y.shape[1], y.shape[2]) for y in maps] == expected
    assert len(maps) >= 3
    last = len(maps) - 1
    early = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
    assert torch.equal(early[0], maps[1])
    for arguments in ({}, {"out_indices": (0, last), "feature_cls": "getter"}):
        only = create(name, features_only=True, **arguments).eval()
        outputs = only(x)
        chosen = arguments.get("out_indices", range(last + 1))
        assert [(y.shape[1], y.shape[2]) for y in outputs] == [expected[index] for index in chosen]
        assert [y.shape[1] for y in outputs] == only.feature_info.channels()
        assert only.feature_info.reduction() == [model.feature_info[index]["reduction"] for index in chosen]
        assert all(map(torch.equal, outputs, [maps[index] for index in chosen]))


@ours
def test_the_layers_after_the_last_wanted_one_can_be_cut_off(name):
    model, x = create(name).eval(), images(height=64, width=64)
    expected = model.forward_intermediates(x, indices=[1], intermediates_only=True)
    before = sum(parameter.numel() for parameter in model.parameters())
    assert model.prune_intermediate_layers([1]) == [1]
    assert sum(parameter.numel() for parameter in model.parameters()) < before
    assert torch.equal(model.forward_intermediates(x, indices=[1], intermediates_only=True)[0], expected[0])


@ours
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 32, 64), (4, 33, 47)])
def test_other_channels_and_sizes(name, channels, height, width):
    model, x = create(name, num_classes=3, in_chans=channels).eval(), images(2, channels, height, width)
    assert model(x).shape == (2, 3)
    reduction = model.feature_info[-1]["reduction"]
    assert model.forward_features(x).shape[2:] == (math.ceil(height / reduction), math.ceil(width / reduction))


def backward(model, x):
    """The gradients by name, of a loss on which every logit counts."""
    outputs = model(x)
    logits = torch.cat(tuple(outputs.values())) if isinstance(outputs, dict) else outputs
    (logits * torch.linspace(1, 2, logits.numel()).view_as(logits)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@ours
def test_every_parameter_that_is_read_gets_a_gradient(name):
    gradients = backward(create(name, num_classes=7).train(), images())
    without = {parameter for parameter, gradient in gradients.items() if gradient is None}
    assert without == {parameter for parameter in gradients if name in UNREAD and ".preprocess0." in parameter}
    assert (name in UNREAD) == bool(without)
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)


@ours
def test_traced_by_fx_it_is_the_same(name):
    """Outputs in evaluation, and gradients in training."""
    x = images()
    model = create(name, num_classes=7)
    traced = create_feature_extractor(model, [model.pretrained_cfg["classifier"]])
    (logits,) = traced.eval()(x).values()
    assert torch.equal(logits, model.eval()(x))
    expected, found = backward(create(name, num_classes=7).train(), x), backward(traced.train(), x)
    read = {parameter for parameter, gradient in expected.items() if gradient is not None}
    assert {parameter for parameter, gradient in found.items() if gradient is not None} == read
    for parameter in read:
        torch.testing.assert_close(found[parameter], expected[parameter])


@ours
@pytest.mark.parametrize("coarse", [False, True])
def test_groups_of_parameters_follow_the_depth(name, coarse):
    model = create(name)
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    names = [parameter for group in groups.values() for parameter in group]
    assert sorted(names) == sorted(parameter for parameter, _ in model.named_parameters())
    assert sorted(groups) == list(range(len(groups)))
    cfg = model.pretrained_cfg
    assert f"{cfg['first_conv']}.weight" in groups[0]
    assert f"{cfg['classifier']}.weight" in groups[len(groups) - 1]
    assert len(groups) > 3


@pytest.mark.exactness
@pytest.mark.parametrize("name", ["resnet20", "darts_cifar", "mobilenetv2_cifar", "adaptable_timm"])
def test_gradient_checkpointing_keeps_less_and_changes_nothing(name):
    """Neither gradients of the mixed network, with dropout, nor BatchNorm's statistics."""
    plain, found = create(name, drop_rate=0.5).train(), []
    for recomputes in (False, True):
        torch.manual_seed(0)
        model = deepcopy(plain)
        model.set_grad_checkpointing(recomputes)
        adaptation = Adaptation(model)
        kept = []
        with adaptation.joint_pass(), saved_tensors_hooks(lambda x, kept=kept: kept.append(x.nbytes) or x, lambda x: x):
            output = model(images())
            with buffers_kept(model):
                output.square().sum().backward()
        gradients = [p.grad for p in (*model.parameters(), *adaptation.theta_parameters()) if p.grad is not None]
        found.append(([output, *gradients, *model.buffers(), torch.get_rng_state()], sum(kept)))
    (tensors, kept), (again, kept_again) = found
    assert len(tensors) == len(again) > 20
    assert all(torch.equal(a, b) for a, b in zip(tensors, again, strict=True))
    assert kept_again < 0.8 * kept


def test_another_way_to_feature_maps_is_refused():
    with pytest.raises(ValueError, match=r"feature_cls='fx': a network with edges has 'getter' alone; leave it out"):
        timm.create_model("adaptable_timm", features_only=True, feature_cls="fx", **adaptable_args())
