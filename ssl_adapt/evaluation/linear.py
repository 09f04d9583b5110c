"""The linear probe of a network: the accuracy of a linear layer on its frozen features."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.data import ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.accuracy import logits_accuracy, wilson_interval
from ssl_adapt.evaluation.features import evaluation_mode, extract_features, normalise, process_share
from ssl_adapt.evaluation.linear_fit import fit_features, fit_sgd, gather_in_order, sgd_steps
from ssl_adapt.evaluation.linear_protocol import PARTS, FeaturesProtocol, LinearProtocol
from ssl_adapt.evaluation.progress_bar import Begin, show_nothing
from ssl_adapt.processes import any_process


@dataclass(frozen=True)
class LinearResult:
    """A linear probe's score together with how it was measured.

    Attributes:
        top1: fraction in [0, 1] of the test images whose class has the largest logit.
        top5: fraction in [0, 1] of those whose class is among the five largest.
        interval: Wilson's 95 % interval of top1, over test images: it knows nothing of other seeds.
        protocol: the protocol it was measured under.
        chosen: the penalty or learning rate that was chosen on held-out training images.
        held_out: the fraction of these that was right, for each penalty or learning rate.
        held_out_count: their number.
        train_count: number of labelled images.
        test_count: number of test images.
        features: dimension of the features.
        seconds: that features and fit took in this process.
    """

    top1: float
    top5: float
    interval: tuple[float, float]
    protocol: LinearProtocol
    chosen: float
    held_out: dict[float, float]
    held_out_count: int
    train_count: int
    test_count: int
    features: int
    seconds: float = field(compare=False)


def evaluate_linear(
    network: nn.Module,
    train: ImageSet,
    test: ImageSet,
    protocol: LinearProtocol,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
    workers: int,
    begin: Begin = show_nothing,
) -> LinearResult:
    """The test accuracy of a linear layer on features of the network, which is left as it is, to the bit.

    Features are standardised first: minus their mean and over their standard deviation on the training images, so
    that one set of penalties and learning rates serves all networks.

    Args:
        network: maps images (B, 3, H, W) to (B, D), on `device`.
        train: labelled images that the layer is trained on, and its penalty or learning rate chosen.
        test: labelled images that are scored, and choose nothing.
        protocol: how the layer is trained.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, likewise.
        batch_size: images that the network sees at a time; of the protocol `sgd` where images are not augmented.
        device: where the network is.
        workers: processes that decode, where a set is not in memory.
        begin: called at each stage; see `progress_bar`.

    Raises:
        ValueError: there are too few labelled images, or the features are not (B, D) or not finite.
        RuntimeError: the network changed, which is a defect.

    Distributed:
        Collective: images are shared out, and all processes get the result that one would, but for `seconds` and for
        the rounding of features, which may depend on how many images the network sees at a time.
    """
    if train.labels is None or test.labels is None:
        raise UserError("a linear probe needs labels of the training and the test images; pass sets that have them")
    if len(train) < PARTS:
        raise UserError(
            f"there are {len(train)} labelled images and a fifth of them is held out: give at least {PARTS}"
        )
    before_sec = time.perf_counter()

    def extract(image_set: ImageSet, name: str) -> Tensor:
        share = process_share(len(image_set))
        features = extract_features(
            network, image_set, mean=mean, std=std, batch_size=batch_size, device=device, workers=workers,
            indices=share, advance=begin(f"features of the {name} images", len(share)),
        )  # fmt: skip
        if any_process(not bool(features.isfinite().all())):
            raise UserError(
                f"features of the {name} images are not finite; look for a diverged loss or a wrong normalisation"
            )
        return features

    with unchanged(network):
        own, test_features = extract(train, "training"), extract(test, "test")
        features = gather_in_order(own, len(train))
        centre, scale = features.mean(dim=0), features.std(dim=0, correction=0)
        scale = scale.where(scale > 0, 1.0)
        features, test_features = (features - centre) / scale, (test_features - centre) / scale

        def embed(images: Tensor) -> Tensor:
            with evaluation_mode(network), torch.no_grad(), torch.autocast(device.type, enabled=False):
                rows: Tensor = network(normalise(images, mean, std)).float()
            return (rows - centre.to(device)) / scale.to(device)

        if isinstance(protocol, FeaturesProtocol):
            advance = begin("logistic regressions", None)
            fit = fit_features(features, train.labels, len(train.classes), protocol, advance)
        else:
            advance = begin("SGD", sgd_steps(protocol, len(train)))
            fit = fit_sgd(embed, train, features, protocol, device, workers, advance)
    logits = F.linear(test_features.double(), fit.weight, fit.bias)
    accuracy = logits_accuracy(logits, test.labels[process_share(len(test))])
    return LinearResult(
        top1=accuracy.top1,
        top5=accuracy.top5,
        interval=wilson_interval(accuracy.top1, accuracy.count),
        protocol=protocol,
        chosen=fit.chosen,
        held_out=fit.held_out,
        held_out_count=fit.held_out_count,
        train_count=len(train),
        test_count=accuracy.count,
        features=features.shape[1],
        seconds=time.perf_counter() - before_sec,
    )


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Compares the network's parameters and buffers after the block with those before it, bit by bit.

    Raises:
        RuntimeError: one has changed.
    """
    before = {name: tensor.clone() for name, tensor in _tensors(network).items()}
    yield
    after = _tensors(network)
    changed = [name for name, tensor in before.items() if name not in after or not _same_bits(tensor, after[name])]
    if changed or len(after) != len(before):
        raise RuntimeError(f"the frozen network changed: {', '.join(changed) or 'tensors were added'}")


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return torch.equal(*(tensor.detach().cpu().flatten().view(torch.uint8) for tensor in (first, second)))
