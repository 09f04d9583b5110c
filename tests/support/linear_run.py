"""What one process, and each of several, finds for tests/evaluation/test_linear.py."""

import pickle
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_adapt.data import ImageSplits, load_image_splits
from ssl_adapt.evaluation.linear import LinearResult, evaluate_linear
from ssl_adapt.evaluation.linear_protocol import FeaturesProtocol, LinearProtocol, SgdProtocol
from ssl_adapt.processes import process_count, process_index

FAST = FeaturesProtocol(penalties=(1e-3, 1e-1, 10.0))
CLASSIC = SgdProtocol(epochs=6, learning_rates=(0.001, 0.1, 1.0), held_out_images=200)
SETTINGS = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.3, 0.3, 0.3),
    "batch_size": 100,
    "device": torch.device("cpu"),
    "workers": 0,
}


class Counting(nn.Module):
    """A network with BatchNorm and Dropout that counts the images it sees; a cheap one, of random features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)
        )
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.layers(images)


def network() -> Counting:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Counting()


def digits(share: float | None = 0.5) -> ImageSplits:
    return load_image_splits("digits", image_px=8, labelled_share=share)


def measure(protocol: LinearProtocol, share: float | None = 0.5) -> tuple[LinearResult, int]:
    probed = network()
    return evaluate_linear(probed, *digits(share), protocol, **SETTINGS), probed.seen


def main(folder: Path) -> None:
    """What this process finds, as a file."""
    found = [measure(FAST), measure(replace(CLASSIC, epochs=2))]
    (folder / f"{process_index()}_of_{process_count()}").write_bytes(pickle.dumps(found))
