"""The projector: its layers and counts."""

import torch
from torch import nn

from ssl_adapt.objectives.base import create_mlp


def test_projector_of_the_reference_recipe() -> None:
    projector = create_mlp(2048, 512, 128)
    assert sum(p.numel() for p in projector.parameters()) == 1_115_264
    assert [type(layer) for layer in projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert projector[0].bias is None
    assert projector[3].bias is not None
    assert projector(torch.randn(4, 2048)).shape == (4, 128)
