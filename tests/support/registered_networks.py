"""Every network that we register, and its variants, small."""

import timm
from torch import nn

import ssl_adapt  # noqa: F401 (registers the networks)

MOBILE = [(1, 8, 1, 1), (6, 8, 2, 1), (6, 16, 2, 2)]
TWO_STAGES = {"width": 4, "layers": [1, 2]}
TINY_CELLS = {"channels": 4, "cells": 3}
NETWORKS = {  # what the test is called -> arguments of timm.create_model
    "resnet20": TWO_STAGES,
    "resnet20, B": {**TWO_STAGES, "shortcut": "B"},
    "resnet20_bottleneck": TWO_STAGES,
    "resnet50_cifar": TWO_STAGES,
    "darts": TINY_CELLS,
    "darts_cifar": TINY_CELLS,
    "darts24_ssl": {"channels": 4, "cells": 4},
    "resnet20_nat": TINY_CELLS,
    "mobilenetv2_nat": TINY_CELLS,
    "resnet50_nat": TINY_CELLS,
    "mobilenetv2_cifar": {"settings": MOBILE},
    "mobilenetv2_cifar, block": {"settings": MOBILE, "granularity": "block"},
    "proxyless_mobile": {"width": 0.1},
    "proxyless_gpu": {"width": 0.1},
    "proxyless_cpu": {"width": 0.1},
    "proxyless_mobile_cifar": {"width": 0.1},
    "proxyless_mobile_cifar, op": {"width": 0.1, "granularity": "op"},
    "proxyless_gpu_cifar": {"width": 0.1},
    "proxyless_cpu_cifar": {"width": 0.1},
}
CFG = {"input_size": (3, 16, 16)}


def create(key: str) -> nn.Module:
    return timm.create_model(key.partition(",")[0], pretrained_cfg_overlay=CFG, num_classes=5, **NETWORKS[key])
