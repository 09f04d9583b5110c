"""What one process, and each of several, finds for tests/evaluation/test_linear.py."""

import pickle
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_adapt.commands.linear_command import run as command
from ssl_adapt.data import ImageSplits, load_image_splits
from ssl_adapt.evaluation.features import process_share
from ssl_adapt.evaluation.linear import LinearResult, evaluate_linear
from ssl_adapt.evaluation.linear_protocol import FeaturesProtocol, LinearProtocol, SgdProtocol
from ssl_adapt.processes import process_count, process_index
from ssl_adapt.training.online_probe import EpochScore, OnlineProbe

COMMAND = [
    "model=test_resnet",
    "pretrained=false",
    "data=digits",
    "image_px=32",
    "labelled_share=0.05",
    "batch_size=150",
]
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


def online() -> tuple[Tensor, EpochScore]:
    """The weights of an online probe after three batches of 96 digits, and its score; each process has its share."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 16))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone[1].reset_parameters()
    backbone.num_classes, backbone.num_features = 0, 16
    probe = OnlineProbe(backbone, 10, torch.device("cpu"))
    train, _ = digits(None)
    for batch in range(3):
        indices = 96 * batch + process_share(96)
        probe.train(backbone, train.images(indices).float() / 255, train.labels[indices])
        if batch == 1:  # what a checkpoint holds
            probe.load_state_dict(probe.state_dict())
    return probe.head.weight.detach(), probe.end_epoch()


def main(folder: Path) -> None:
    """What this process finds, as a file; the last is what the command writes, which one of them does."""
    found = [measure(FAST), measure(replace(CLASSIC, epochs=2)), online()]
    (folder / f"{process_index()}_of_{process_count()}").write_bytes(pickle.dumps(found))
    command([*COMMAND, f"json={folder / 'linear.json'}"])
