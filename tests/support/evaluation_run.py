"""What one process, and each of several, measures for tests/evaluation/test_evaluation_processes.py."""

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from small_networks import Decoded
from torch import Tensor, nn

from ssl_adapt.data import ImageSet, load_image_splits
from ssl_adapt.evaluation.knn import KnnResult, evaluate_knn
from ssl_adapt.evaluation.monitor import AccuracyMonitor, FeatureMonitor, Monitor
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.processes import process_count, process_index

EXP = KnnProtocol(layer="backbone", k=50, temperature=0.1, weighting="exp")
MAJORITY = KnnProtocol(layer="backbone", k=7, temperature=None, weighting="majority")
ALL = KnnProtocol(layer="backbone", k=101, temperature=0.5, weighting="exp")
BANK_LABELS, QUERY_LABELS = (-2, 5, 30, 10**9), (77, 5, 30, 10**9)  # nobody asks for -2, nobody knows 77
FEW = {2: ((98, 3), (0, 37)), 3: ((60, 41, 0), (1, 30, 6))}  # rows of the bank and queries of each process
MANY = {2: ((500, 401), (690, 10)), 3: ((13, 801, 87), (600, 90, 10))}
PROTOCOLS = {"exp": (EXP, FEW), "majority": (MAJORITY, FEW), "k of all": (ALL, FEW), "many chunks": (EXP, MANY)}

Features = tuple[Tensor, Tensor, Tensor, Tensor]


def draw(bank_count: int, query_count: int) -> Features:
    """Features around their class's centre, so far apart that a kNN is wrong now and then, and their labels."""
    generator = torch.Generator().manual_seed(bank_count)
    centres = torch.randn(4, 12, generator=generator)
    features = []
    for count, names in ((bank_count, BANK_LABELS), (query_count, QUERY_LABELS)):
        classes = torch.randint(4, (count,), generator=generator)
        features += [centres[classes] + torch.randn(count, 12, generator=generator), torch.tensor(names)[classes]]
    return tuple(features)


def own_part(rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return rows.split(sizes)[process_index()] if process_count() > 1 else rows


def knn(name: str) -> KnnResult:
    protocol, sizes = PROTOCOLS[name]
    bank, bank_labels, queries, query_labels = draw(*map(sum, sizes[2]))
    if process_count() > 1:
        bank_sizes, query_sizes = sizes[process_count()]
        bank, bank_labels = (own_part(rows, bank_sizes) for rows in (bank, bank_labels))
        queries, query_labels = (own_part(rows, query_sizes) for rows in (queries, query_labels))
    return evaluate_knn(bank, bank_labels, queries, query_labels, protocol, sharded=True)


def spoiled(what: str) -> str:
    """The error where only the last process's share is wrong, or only all together are."""
    bank, labels, queries, query_labels = (rows[:6] for rows in draw(101, 37))
    protocol, class_count, is_last = MAJORITY, None, process_index() == process_count() - 1
    if what == "k":
        protocol = KnnProtocol(layer="backbone", k=6 * process_count() + 1, temperature=None, weighting="majority")
    if what == "no queries":
        queries, query_labels = queries[:0], query_labels[:0]
    if what == "class_count":
        labels, query_labels, class_count = torch.zeros(6).long(), torch.full((6,), 9 if is_last else 0), 3
    if what == "not finite" and is_last:
        bank = bank / 0
    if what == "dimensions" and is_last:
        bank = bank[:, :5]
    try:
        evaluate_knn(bank, labels, queries, query_labels, protocol, class_count=class_count, sharded=True)
    except ValueError as error:
        return str(error)
    return "no error"


class Counting(nn.Module):
    """A network with BatchNorm and Dropout that counts the images it sees."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(288, outputs)
        )
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.layers(images)


@cache
def monitors() -> dict[str, tuple[Monitor, int]]:
    """Monitors and how many images each has to see."""
    train, test = load_image_splits("digits", image_px=8)
    assert isinstance(test.pixels, Tensor)
    two = ImageSet("two", Decoded(test.pixels[:2]), test.classes, test.labels[:2])
    noise = torch.randint(256, (4100, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rest = ((0.5, 0.4, 0.3), (0.3, 0.3, 0.4), 50, torch.device("cpu"), 0)
    protocol = KnnProtocol(layer="backbone", k=20, temperature=0.5, weighting="exp")
    return {
        "digits": (FeatureMonitor(train, test, protocol, *rest), 1797),
        "fewer queries than processes": (FeatureMonitor(train, two, protocol, *rest), 1299),
        "every third row": (FeatureMonitor(ImageSet("noise", noise), None, protocol, *rest), 4100),
        "accuracy": (AccuracyMonitor(train, test, *rest), 500),
        "accuracy of two": (AccuracyMonitor(train, two, *rest), 2),
    }


def monitored(name: str) -> SimpleNamespace:
    """The evaluations by a monitor, and how many images the network saw and had to see."""
    monitor, must_see = monitors()[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Counting(10)
    evaluation = monitor.evaluate(network)
    pixels = monitor.evaluate_pixels()
    return SimpleNamespace(evaluation=evaluation, pixels=pixels, seen=network.seen, must_see=must_see)


def few_logits() -> str:
    """The error of a network that has no logit for some labels."""
    try:
        monitors()["accuracy"][0].evaluate(Counting(6))
    except ValueError as error:
        return str(error)
    return "no error"


MEASURES: dict[str, Callable[[], Any]] = {
    **{f"knn {name}": lambda name=name: knn(name) for name in PROTOCOLS},
    **{f"monitor {name}": lambda name=name: monitored(name) for name in monitors()},
    **{
        f"error {what}": lambda what=what: spoiled(what)
        for what in ("k", "no queries", "class_count", "not finite", "dimensions")
    },
    "error logits": few_logits,
}


def main(folder: Path) -> None:
    """What this process finds, as a file."""
    found = {name: measure() for name, measure in MEASURES.items()}
    (folder / f"{process_index()}_of_{process_count()}.pickle").write_bytes(pickle.dumps(found))
