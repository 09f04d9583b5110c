"""What holds for every network of ours: the mixed form is the plain one, and what is fixed can be exported."""

import copy

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_adapt import Adaptation, Architecture, apply_architecture, export_timm
from ssl_adapt.adaptation.adaptation import one_hot
from ssl_adapt.adaptation.edge import MixedEdge

MOBILE = [(1, 8, 1, 1), (6, 8, 2, 1), (6, 16, 2, 2)]
NETWORKS = {
    "resnet20": {"width": 4, "layers": [1, 2]},
    "resnet20_bottleneck": {"width": 4, "layers": [1, 2]},
    "resnet50_cifar": {"width": 4, "layers": [1, 2]},
    "darts": {"channels": 4, "cells": 3},
    "darts_cifar": {"channels": 4, "cells": 3},
    "darts24_ssl": {"channels": 4, "cells": 4},
    "resnet20_nat": {"channels": 4, "cells": 3},
    "mobilenetv2_nat": {"channels": 4, "cells": 3},
    "resnet50_nat": {"channels": 4, "cells": 3},
    "mobilenetv2_cifar": {"settings": MOBILE},
    "proxyless_mobile": {"width": 0.1},
    "proxyless_gpu": {"width": 0.1},
    "proxyless_cpu": {"width": 0.1},
    "proxyless_mobile_cifar": {"width": 0.1},
    "proxyless_gpu_cifar": {"width": 0.1},
    "proxyless_cpu_cifar": {"width": 0.1},
}
CFG = {"input_size": (3, 16, 16)}


def create(name: str, **kwargs: object) -> nn.Module:
    return timm.create_model(name, pretrained_cfg_overlay=CFG, num_classes=5, **NETWORKS[name], **kwargs)


def test_no_network_is_forgotten():
    ours = {
        name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("ssl_adapt.backbones")
    }
    assert ours - {"adaptable_timm"} == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape_change", ["pad", "forbid"])
def test_mixed_is_plain_to_the_bit_at_the_start(name, shape_change):
    torch.manual_seed(0)
    plain = create(name)
    mixed = copy.deepcopy(plain)
    Adaptation(mixed, shape_change=shape_change)
    x = torch.randn(2, 3, 16, 16)
    for mode in (True, False, True):
        assert torch.equal(plain.train(mode)(x), mixed.train(mode)(x))


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("proxyless")])
def test_cell_sharing(name):
    adaptation = Adaptation(create(name), sharing="cell")
    assert 0 < len(adaptation.theta) < len(adaptation.edges)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_architectures_are_fixed_exported_and_reloaded(name, data, tmp_path_factory):
    """Many none: one-hot mixed == fixed == built from the Architecture == reloaded through timm."""
    torch.manual_seed(0)
    mixed = create(name)
    plain = copy.deepcopy(mixed)
    adaptation = Adaptation(mixed, none_rule="threshold", on_dead="allow")
    for spec in adaptation.edges:
        choice = data.draw(st.sampled_from([c for c in ("none", *spec.candidates) if c in spec.candidates]))
        adaptation.theta[spec.name].data = torch.tensor(one_hot(choice))
    x = torch.randn(2, 3, 16, 16)
    expected = mixed.eval()(x)
    architecture = adaptation.fix()
    assert not any(isinstance(module, MixedEdge) for module in mixed.modules())
    torch.testing.assert_close(mixed(x), expected, rtol=1e-4, atol=1e-5)
    apply_architecture(plain, Architecture.from_json(architecture.to_json()))
    plain.load_state_dict(mixed.state_dict())
    assert torch.equal(plain.eval()(x), mixed(x))
    folder = export_timm(
        mixed, tmp_path_factory.mktemp("export") / "net", extra_args=NETWORKS[name], keep_classifier=True
    )
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert Architecture.of(loaded).edges == architecture.edges
    assert torch.equal(loaded(x), mixed(x))
    features = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    mixed.reset_classifier(0)
    assert torch.equal(features(x), mixed(x))
