"""Small networks of every family, adapted at random and fixed, with BatchNorm statistics of images that they saw."""

import random
import warnings

import timm
import torch
from registered_networks import MOBILE
from torch import nn

from ssl_adapt import Adaptation, adaptable

PX16, PX32 = ({"pretrained_cfg_overlay": {"input_size": (3, px, px)}, "num_classes": 5} for px in (16, 32))
VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 5}
CONVNEXT = {"depths": [2, 1, 3, 1], "dims": [8, 8, 8, 8]}
RESNET18 = {"layers": [2, 2, 3, 1], "channels": [8, 8, 8, 8]}
STAGES, CELLS = {"width": 4, "layers": [1, 2]}, {"channels": 4, "cells": 3}
FAMILIES = {  # what it is called -> name and arguments for timm.create_model; the third: keywords of `adaptable`
    "resnet20, He's form": ("resnet20", STAGES, None),
    "resnet20_bottleneck": ("resnet20_bottleneck", STAGES, None),
    "resnet20_nat": ("resnet20_nat", CELLS, None),
    "mobilenetv2_cifar": ("mobilenetv2_cifar", {"settings": MOBILE}, None),
    "darts_cifar": ("darts_cifar", CELLS, None),
    "proxyless_mobile_cifar": ("proxyless_mobile_cifar", {"width": 0.1}, None),
    "resnet18 of timm": ("resnet18", {**RESNET18, **PX32}, {}),
    "vit of timm, blocks": ("vit_tiny_patch16_224", VIT, {}),
    "vit of timm, branches": ("vit_tiny_patch16_224", VIT, {"granularity": "branch"}),
    "convnext of timm": ("convnext_atto", {**CONVNEXT, **PX32}, {}),
}


def plain_network(family: str) -> nn.Module:
    name, arguments, how = FAMILIES[family]
    model = timm.create_model(name, **(arguments if how is not None else {**PX16, **arguments}))
    return model if how is None else adaptable(model, **how)


def adapted_network(family: str, **choices: str) -> nn.Module:
    """With the choices given for its edges ("__" for "."), or random ones whose outputs still tell images apart."""
    given = {name.replace("__", "."): choice for name, choice in choices.items()}
    with torch.random.fork_rng(devices=[]):
        for seed in range(20):
            torch.manual_seed(seed)
            model, draw = plain_network(family), random.Random(seed)
            chosen = {
                spec.name: given.get(spec.name, "original")
                if given
                else draw.choice([choice for choice in spec.candidates if spec.allows(choice, "pad")])
                for spec in model.edge_specs()
            }
            with warnings.catch_warnings(action="ignore"):  # of nodes that only none edges enter
                Adaptation(model, choices=chosen).fix()
            images = torch.randn(8, *model.pretrained_cfg["input_size"])
            with torch.no_grad():
                for parameter in model.parameters():  # some begin at zero, which would hide differences
                    parameter.add_(0.02 * torch.randn_like(parameter))
                for _ in range(2):
                    model.train()(images)
                outputs = model.eval()(images)
            if not torch.allclose(outputs[0], outputs[1]):
                return model
    raise AssertionError(f"no seed gives a {family} that tells images apart")
