"""The second pass of `make test` computes with the kernels that it asks for."""

import os
import platform

import pytest
import torch
from torch import nn

ASKED = os.environ.get("ATEN_CPU_CAPABILITY")


@pytest.mark.exactness
@pytest.mark.skipif(ASKED is None, reason="no other kernels are asked for")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="this CPU has none of them")
def test_the_kernels_are_those_asked_for(capfd):
    assert ASKED == os.environ["ONEDNN_MAX_CPU_ISA"].lower() == "avx2"
    assert torch.backends.cpu.get_cpu_capability() == "AVX2"
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        nn.Conv2d(16, 16, 3)(torch.randn(2, 16, 8, 8))
    said = capfd.readouterr().out
    assert "convolution" in said
    assert "avx2" in said
    assert "avx512" not in said
