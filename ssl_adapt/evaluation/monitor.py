"""Evaluations that a run repeats: kNN or accuracy, and measures of collapse.

With several processes each evaluates its share of the images, and all get the result for all images, the same as in a
single process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import nn

from ssl_adapt.data import ImageSet, epoch_order, iterate_batches
from ssl_adapt.evaluation.accuracy import Accuracy, evaluate_accuracy
from ssl_adapt.evaluation.collapse import feature_std, rank_me
from ssl_adapt.evaluation.features import extract_features, normalise, process_share, raw_pixels
from ssl_adapt.evaluation.knn import KnnResult, evaluate_knn
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.evaluation.recalibration import recalibrated
from ssl_adapt.processes import gather_rows

CALIBRATION_IMAGES = 5000  # training images, at most, that BatchNorm is recalibrated on
COLLAPSE_ROWS = 2048  # features that the rank is computed from; its cost grows with their number


@dataclass(frozen=True)
class Evaluation:
    """A network's score, if there are labels, and the spread of its features, if it was measured."""

    score: KnnResult | Accuracy | None
    feature_std: float | None = None
    rank_me: float | None = None


class Monitor(Protocol):
    """Evaluates a network, repeatedly, on the same images."""

    name: ClassVar[str]

    @property
    def bank(self) -> ImageSet:
        """The training images, or a sample of them."""
        ...

    @property
    def queries(self) -> ImageSet | None:
        """The images that are classified, if there are labels."""
        ...

    @property
    def sampled_from(self) -> tuple[int, int] | None:
        """Numbers of all images, if a trial takes a sample as bank and queries."""
        ...

    def evaluate(self, network: nn.Module, begin: Begin = show_nothing) -> Evaluation:
        """The evaluation of a network as it is now; `begin` is called at each stage of it.

        Distributed:
            Collective: every process calls it with the same network, and gets the same evaluation.
        """
        ...

    def evaluate_recalibrated(self, network: nn.Module, begin: Begin = show_nothing) -> Evaluation:
        """The same with BatchNorm's statistics recomputed on training images; the network is left as it was.

        Distributed:
            Collective, as `evaluate`.
        """
        ...

    def evaluate_pixels(self) -> KnnResult | None:
        """The score without a network, or None where there is none.

        Distributed:
            Collective, as `evaluate`.
        """
        ...

    def describe(self) -> str:
        """How the score is measured, in words."""
        ...


@dataclass(frozen=True)
class AccuracyMonitor:
    """Evaluates a classifier on a fixed set of images with labels; fields as in `FeatureMonitor`."""

    name: ClassVar[str] = "accuracy"

    bank: ImageSet
    queries: ImageSet | None
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    device: torch.device
    workers: int
    sampled_from: tuple[int, int] | None = None

    def evaluate(self, network: nn.Module, begin: Begin = show_nothing) -> Evaluation:
        """The evaluation of a network that maps images to logits."""
        if self.queries is None:
            return Evaluation(None)
        return Evaluation(
            evaluate_accuracy(
                network,
                self.queries,
                mean=self.mean,
                std=self.std,
                batch_size=self.batch_size,
                device=self.device,
                workers=self.workers,
                advance=begin("test images", len(process_share(len(self.queries)))),
            )
        )

    def evaluate_recalibrated(self, network: nn.Module, begin: Begin = show_nothing) -> Evaluation:
        """The evaluation with BatchNorm's statistics recomputed on the bank's images."""
        return _evaluate_recalibrated(self, network, begin)

    def evaluate_pixels(self) -> KnnResult | None:
        """None: there is no accuracy without a classifier."""
        return None

    def describe(self) -> str:
        """What the accuracy is measured on."""
        if self.queries is None:
            return "none: there are no test images"
        [count], note = _describe_counts([self.queries], self.sampled_from and self.sampled_from[1:])
        return f"on {count} test images, not augmented{note}"


@dataclass(frozen=True)
class FeatureMonitor:
    """Evaluates a network's features on fixed sets of images under a fixed protocol.

    Attributes:
        bank: images whose labels vote; without labels, images for the measures of collapse.
        queries: images that are classified, or None: then there is no kNN score.
        protocol: how the neighbours vote.
        mean: per channel, of the network's input.
        std: per channel.
        batch_size: images at a time.
        device: where the network of this process is.
        workers: processes that decode, where a set is not in memory.
        sampled_from: numbers of all images, if a trial takes a sample as bank and queries; None: it takes all.
    """

    name: ClassVar[str] = "kNN"

    bank: ImageSet
    queries: ImageSet | None
    protocol: KnnProtocol
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    device: torch.device
    workers: int
    sampled_from: tuple[int, int] | None = None

    def evaluate(self, network: nn.Module, begin: Begin = show_nothing) -> Evaluation:
        """The evaluation of a network that maps images to features (B, D)."""
        bank = self._extract(network, self.bank, "training", begin)
        step = -(-len(self.bank) // COLLAPSE_ROWS)
        rows = gather_rows(bank[process_share(len(self.bank)) % step == 0])
        knn = None
        if self.queries is not None:
            queries = self._extract(network, self.queries, "test", begin)
            begin("nearest neighbours", None)
            knn = self._knn(bank, queries, self.queries)
        return Evaluation(knn, feature_std(rows), rank_me(rows))

    def evaluate_recalibrated(self, network: nn.Module, begin: Begin = show_nothing) -> Evaluation:
        """The evaluation with BatchNorm's statistics recomputed on the bank's images."""
        return _evaluate_recalibrated(self, network, begin)

    def evaluate_pixels(self, memory_limit_bytes: int = 2 * 2**30) -> KnnResult | None:
        """The score of raw pixels, or None without labels or where they would take more than the limit."""
        if self.queries is None:
            return None
        float_bytes = 4 * self.bank.images(torch.tensor([0])).numel()
        if (len(self.bank) + len(self.queries)) * float_bytes > memory_limit_bytes:
            return None
        bank, queries = (raw_pixels(images, process_share(len(images))) for images in (self.bank, self.queries))
        return self._knn(bank, queries, self.queries)

    def describe(self) -> str:
        """The protocol, and the numbers of bank and query images."""
        if self.queries is None:
            return "none: the data has no labels, or no test images"
        [bank, queries], note = _describe_counts([self.bank, self.queries], self.sampled_from)
        return f"{self.protocol}; bank {bank}, queries {queries}{note}"

    def _extract(self, network: nn.Module, image_set: ImageSet, name: str, begin: Begin) -> torch.Tensor:
        """The features of this process's share of the images."""
        share = process_share(len(image_set))
        return extract_features(
            network,
            image_set,
            mean=self.mean,
            std=self.std,
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
            indices=share,
            advance=begin(f"features of the {name} images", len(share)),
        )

    def _knn(self, bank: torch.Tensor, queries: torch.Tensor, query_set: ImageSet) -> KnnResult:
        """The score of all queries, from the features of this process's shares."""
        assert self.bank.labels is not None
        assert query_set.labels is not None
        return evaluate_knn(
            bank,
            self.bank.labels[process_share(len(self.bank))],
            queries,
            query_set.labels[process_share(len(query_set))],
            self.protocol,
            class_count=len(self.bank.classes),
            sharded=True,
        )


def _describe_counts(sets: Sequence[ImageSet], sampled_from: Sequence[int] | None) -> tuple[list[str], str]:
    """The number of images in each set, as "A of B" for a sample, and a remark if there is a sample."""
    counts = [len(images) for images in sets]
    wholes = sampled_from or counts
    words = [
        f"{count:,}" if count == whole else f"{count:,} of {whole:,}"
        for count, whole in zip(counts, wholes, strict=True)
    ]
    is_sample = list(wholes) != counts
    return words, ": a sample, as the run is a trial, shorter than a tenth of an epoch" if is_sample else ""


def _evaluate_recalibrated(
    monitor: AccuracyMonitor | FeatureMonitor, network: nn.Module, begin: Begin = show_nothing
) -> Evaluation:
    indices = epoch_order(len(monitor.bank), seed=0, epoch=0)[
        :CALIBRATION_IMAGES
    ]  # as the images may be sorted by class
    size = monitor.batch_size
    batches = iterate_batches(
        monitor.bank, indices, batch_size=size, device=monitor.device, workers=monitor.workers,
        drop_last=len(indices) > size,
    )  # fmt: skip
    with recalibrated(network, (normalise(batch.images, monitor.mean, monitor.std) for batch in batches)):
        return monitor.evaluate(network, begin)
