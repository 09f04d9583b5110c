"""No run reaches the channels-last kernel that writes past its workspace on CPUs with AVX2."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from short_runs import SUPERVISED, TINY, run
from torch import nn

import ssl_adapt  # noqa: F401 (registers the networks)
from reproduction.nat.search import search
from reproduction.nat.settings import PUBLISHED
from ssl_adapt.backbones.memory_format import choose_memory_format, is_broken_channels_last
from ssl_adapt.data import load_image_splits
from ssl_adapt.recipe import load_recipe

CPU = torch.device("cpu")
REDUCED = """
import sys, torch
torch.manual_seed(0)
channels, worst = int(sys.argv[1]), 0.0
conv = torch.nn.Conv2d(channels, 32, 1, 2, bias=False).to(memory_format=torch.channels_last)
images = torch.randn(128, channels, 8, 8).to(memory_format=torch.channels_last)
for _ in range(50):
    found, wanted = images.clone().requires_grad_(), images.double().requires_grad_()
    y = conv(found)
    g = torch.randn_like(y)
    y.backward(g)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.nn.functional.conv2d(wanted, conv.weight.double(), stride=2).backward(g.double())
    worst = max(worst, (found.grad - wanted.grad).abs().max().item())
sys.exit(0 if worst < 1e-4 else 3)
"""


def reduced_case_is_right(channels: int) -> bool:
    checks = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", REDUCED, str(channels)], env={**os.environ, **checks}, capture_output=True
    )
    return process.returncode == 0


def test_a_convolution_that_is_not_named_is_right():
    assert reduced_case_is_right(16)


@pytest.mark.parametrize(
    ("conv", "is_broken"),
    [
        (nn.Conv2d(4, 32, 1, 2), True),
        (nn.Conv2d(2, 8, 1, (1, 2)), True),
        (nn.Conv2d(1, 32, 1, 2), True),
        (nn.Conv2d(7, 32, 1, 2), True),
        (nn.Conv2d(15, 32, 1, 2), True),
        (nn.Conv2d(16, 32, 1, 2), False),
        (nn.Conv2d(12, 12, 1, 2, groups=2), False),
        (nn.Conv2d(4, 32, 1), False),
        (nn.Conv2d(4, 32, 3, 2), False),
    ],
)
def test_the_rule(conv, is_broken):
    assert is_broken_channels_last(conv) == is_broken
    expected = torch.contiguous_format if is_broken else torch.channels_last
    assert choose_memory_format(nn.Sequential(nn.ReLU(), conv), CPU) == expected
    assert choose_memory_format(conv, torch.device("cuda")) == torch.channels_last


@pytest.mark.parametrize("groups", [1, 36])
def test_dilated_convolutions_are_contiguous_in_bfloat16(groups):
    conv = nn.Conv2d(36, 36, 3, 1, 2, 2, groups=groups)
    assert choose_memory_format(conv, CPU) == torch.channels_last
    assert choose_memory_format(conv, CPU, bfloat16=True) == torch.contiguous_format
    assert choose_memory_format(nn.Conv2d(36, 36, 3, groups=groups), CPU, bfloat16=True) == torch.channels_last
    assert choose_memory_format(conv, torch.device("cuda"), bfloat16=True) == torch.channels_last
    assert choose_memory_format(timm.create_model("darts"), CPU, bfloat16=True) == torch.contiguous_format


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this CPU has no bfloat16 instructions")
@pytest.mark.parametrize("groups", [1, 24])
def test_what_takes_their_place_is_right(groups):
    torch.manual_seed(0)
    conv, images = nn.Conv2d(24, 24, 3, 1, 2, 2, groups, False).bfloat16(), torch.randn(2, 24, 64, 64).bfloat16()
    found, wanted = images.clone().requires_grad_(), images.double().requires_grad_()
    gradient = torch.randn_like(images)
    conv(found).backward(gradient)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.nn.functional.conv2d(wanted, conv.weight.double(), padding=2, dilation=2, groups=groups).backward(
            gradient.double()
        )
    assert (found.grad - wanted.grad).norm() < 0.01 * wanted.grad.norm()


def test_a_learnt_identity_counts_before_it_is_there():
    narrow = timm.create_model("resnet20", width=4, layers=[1, 2])
    assert not any(isinstance(m, nn.Conv2d) and is_broken_channels_last(m) for m in narrow.modules())
    assert choose_memory_format(narrow, CPU) == torch.contiguous_format
    for name in ("resnet20", "resnet20_bottleneck", "darts", "resnet20_nat", "mobilenetv2_cifar"):
        assert choose_memory_format(timm.create_model(name), CPU) == torch.channels_last, name


@pytest.mark.parametrize(("name", "in_chans"), [("gernet_s", 3), ("repvgg_a0", 3), ("repvgg_a0", 1), ("repvgg_a0", 8)])
def test_timm_networks_that_have_such_convolutions(name, in_chans):
    """gernet_s has one of 13 channels, which only AVX-512 computes wrongly; in RepVGG it sees the images."""
    with torch.device("meta"):
        network = timm.create_model(name, in_chans=in_chans)
    assert choose_memory_format(network, CPU) == torch.contiguous_format


BOTTLENECKS = ["model.name=resnet20_bottleneck", "model.args={width: 4, layers: [1, 1]}", "adapt.shape_change=project"]
CELLS = ["model.name=resnet20_nat", "model.args={channels: 4, cells: 3}"]


@pytest.fixture
def calls(monkeypatch) -> list[bool]:
    """For each call, with gradients, of a convolution that the rule names: whether it was channels-last."""
    seen = []
    forward = nn.Conv2d.forward

    def watched(conv, x):
        if is_broken_channels_last(conv) and torch.is_grad_enabled():
            seen.append(any(is_channels_last(tensor) for tensor in (x, conv.weight)))
        return forward(conv, x)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    return seen


def is_channels_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@pytest.mark.parametrize(
    ("base", "arguments"), [(TINY, BOTTLENECKS), (TINY, CELLS), (SUPERVISED, CELLS), (SUPERVISED, BOTTLENECKS)]
)
def test_no_convolution_of_a_run_is_called_so(tmp_path, calls, base, arguments):
    """Both stages and the fix, of networks that have such convolutions."""
    run(tmp_path / "a", *arguments, "train.max_steps=4", base=base)
    assert len(calls) >= 4
    assert not any(calls)


def test_none_of_a_search_is(tmp_path, calls):
    recipe = load_recipe(["recipe=supervised_resnet20", "adapt=null", "data.name=digits", "data.image_px=8", *CELLS])
    train_set = load_image_splits("digits", image_px=8).train
    settings = replace(PUBLISHED, epochs=1, batch_size=64, channels=4, cells=3, transforms=2)
    search(recipe, train_set.subset(torch.arange(320)), settings, tmp_path, report=lambda line: None)
    assert len(calls) >= 4
    assert not any(calls)
