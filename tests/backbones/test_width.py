"""Widths that meet a number of parameters."""

import pytest
import timm
import torch
from torch import nn

import ssl_adapt.backbones.darts  # noqa: F401 (registers the networks)
from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.backbones.width import (
    FittedWidth,
    count_unbuilt,
    fit_width,
    fit_width_and_projector,
    projector_parameters,
)
from ssl_adapt.objectives.base import create_mlp


def count_darts24(channels):
    return count_unbuilt(lambda: timm.create_model("darts24_ssl", channels=channels, num_classes=0))


def test_width_of_darts_for_simclr():
    def features(channels):
        return 16 * channels  # four nodes, twice doubled

    fitted = fit_width_and_projector(count_darts24, features, 24_600_000, 100_000, range(80, 101))
    assert fitted == FittedWidth(channels=90, hidden=608, parameters=24_604_078, target=24_600_000)
    with torch.device("meta"):
        network = nn.Sequential(timm.create_model("darts24_ssl", num_classes=0), create_mlp(1440, 608, 128))
    assert count_parameters(network) == fitted.parameters
    assert network[0].num_features == features(90)

    def with_usual_head(channels):
        return count_darts24(channels) + projector_parameters(features(channels), 512, 128)

    with pytest.raises(ValueError, match=r"no width gives 24,600,000 \+- 100,000 parameters.*90, gives 24,453,358"):
        fit_width(with_usual_head, 24_600_000, 100_000, range(80, 101))


def test_width_of_resnet50_in_cell_form():
    def count(channels):
        return count_unbuilt(lambda: timm.create_model("resnet50_nat", channels=channels, num_classes=0))

    fitted = fit_width(count, 23_500_000, 100_000, range(100, 141))
    assert fitted == FittedWidth(122, None, 23_412_654, 23_500_000)


@pytest.mark.parametrize(("target", "expected"), [(1, 1), (24, 5), (31, 6), (1000, 9)])
def test_nearest_width(target, expected):
    assert fit_width(lambda width: width**2, target, 10**6, range(1, 10)).channels == expected


def test_no_candidates():
    with pytest.raises(ValueError, match="no candidates"):
        fit_width(lambda width: width, 1, 1, ())
