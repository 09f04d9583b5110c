"""Networks of a few thousand parameters, and images for them."""

from pathlib import Path

import timm
import torch
from torch import Tensor, nn

import ssl_adapt  # registers the networks

BOTTLENECKS = {"layers": (2, 2), "width": 4}


def small(name: str = "resnet20", **kwargs: object) -> nn.Module:
    arguments = {"width": 4, "layers": (1, 2), **kwargs}
    return timm.create_model(name, **arguments)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def export_adapted(folder: Path, name: str = "resnet20", **arguments: object) -> nn.Module:
    """A network of ours with one block removed, exported."""
    plain = timm.create_model(name, num_classes=0, width=4, layers=(2, 2), granularity="branch", **arguments)
    architecture = ssl_adapt.Architecture.of(plain).to_dict()
    architecture["edges"]["layer1.0"] = "identity"
    network = timm.create_model(
        name, num_classes=0, width=4, layers=(2, 2), granularity="branch", architecture=architecture, **arguments
    )
    with torch.no_grad():
        network(torch.randn(8, 3, 8, 8))
    ssl_adapt.export_timm(network, folder)
    return network


def set_theta(adaptation: ssl_adapt.Adaptation, **values: tuple[float, float, float]) -> None:
    for name, value in values.items():
        adaptation.theta[name.replace("__", ".")].data = torch.tensor(value)


class Decoded:
    """A set that is not in memory: one image at a time."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]
