"""Linear layers on frozen features: by logistic regression, or by SGD on augmented images; and which one is chosen."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.data import ImageSet, epoch_order, iterate_batches
from ssl_adapt.data.label_splits import split_parts
from ssl_adapt.evaluation.features import process_share
from ssl_adapt.evaluation.linear_protocol import PARTS, FeaturesProtocol, SgdProtocol
from ssl_adapt.evaluation.progress_bar import Advance
from ssl_adapt.processes import gather_rows, process_count, process_index, sum_all
from ssl_adapt.views.crop import CropFlipGenerator, crop_resize_flip

ABSENT = -1e9  # the logit of a class without images


class LinearFit(NamedTuple):
    """A linear layer, and how it was chosen.

    Attributes:
        weight: float64 (classes, D).
        bias: float64 (classes,).
        chosen: the penalty or the learning rate.
        held_out: the fraction in [0, 1] of the held-out images that are right, for each penalty or rate.
        held_out_count: number of these images.
    """

    weight: Tensor
    bias: Tensor
    chosen: float
    held_out: dict[float, float]
    held_out_count: int


def fit_features(
    features: Tensor, labels: Tensor, classes: int, protocol: FeaturesProtocol, advance: Advance
) -> LinearFit:
    """The logistic regression of features (N, D), all of them in every process, with the penalty that is chosen.

    Distributed: collective: the regressions are shared out.
    """
    part, parts = held_out_parts(labels, protocol.held_out_images)
    jobs = [(index, held) for index in range(len(protocol.penalties)) for held in range(parts)]
    right = torch.zeros(len(protocol.penalties), dtype=torch.float64)
    for index, held in jobs[process_index() :: process_count()]:
        kept = part != held
        weight, bias = logistic_regression(features[kept], labels[kept], classes, protocol.penalties[index], protocol)
        right[index] += count_right(features[~kept], labels[~kept], weight, bias)
        advance(1)
    count = int((part < parts).sum())
    right = sum_all(right)
    best = int((right == right.max()).nonzero()[-1])
    weight, bias = logistic_regression(features, labels, classes, protocol.penalties[best], protocol)
    scores = dict(zip(protocol.penalties, (right / count).tolist(), strict=True))
    return LinearFit(weight, bias, protocol.penalties[best], scores, count)


def logistic_regression(
    features: Tensor, labels: Tensor, classes: int, penalty: float, protocol: FeaturesProtocol
) -> tuple[Tensor, Tensor]:
    """Weights (classes, D) and biases (classes,) that minimise the penalised cross-entropy, float64.

    Source: scikit-learn's LogisticRegression, whose C is 1 / (penalty * N).
    """
    from sklearn.linear_model import LogisticRegression  # here, as it takes a second

    present = labels.unique()
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), ABSENT, dtype=torch.float64)
    if len(present) == 1:
        bias[present] = 0.0
        return weight, bias
    model = LogisticRegression(C=1 / (penalty * len(features)), max_iter=protocol.max_iterations)
    with torch.no_grad():
        model.fit(features.double().numpy(), labels.numpy())
    coefficients, intercepts = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(present) == 2:  # scikit-learn has one row then, for the second class
        coefficients = torch.cat([torch.zeros_like(coefficients), coefficients])
        intercepts = torch.cat([torch.zeros_like(intercepts), intercepts])
    weight[present], bias[present] = coefficients, intercepts
    return weight, bias


def fit_sgd(
    embed: Callable[[Tensor], Tensor],
    image_set: ImageSet,
    features: Tensor,
    protocol: SgdProtocol,
    device: torch.device,
    workers: int,
    advance: Advance,
) -> LinearFit:
    """The linear layer trained by SGD on augmented images with the rate that is chosen.

    Args:
        embed: from images (B, 3, px, px) with values in 0..255 to the frozen network's features, as those below.
        image_set: the labelled images.
        features: (N, D) of them as they are, standardised, all of them in every process.
        protocol: how it is trained.
        device: where the network is.
        workers: processes that decode.
        advance: called after each batch.

    Distributed: collective: each process passes its share of every batch through the network, and all make the same
        steps on the features of the whole batch.
    """
    assert image_set.labels is not None
    labels, classes, width = image_set.labels, len(image_set.classes), features.shape[1]
    part, parts = held_out_parts(labels, protocol.held_out_images)
    # for each rate the layers, side by side: of all images, then without part 0, without part 1, ...
    heads = [
        nn.utils.skip_init(nn.Linear, width, (1 + parts) * classes, device=device) for _ in protocol.learning_rates
    ]
    for head in heads:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    size = min(protocol.batch_size, len(labels))
    groups: list[dict[str, Any]] = [
        {"params": [*head.parameters()], "lr": rate * size / 256}
        for head, rate in zip(heads, protocol.learning_rates, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, momentum=protocol.momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=sgd_steps(protocol, len(labels)))
    for indices, images in _augmented_batches(image_set, protocol, size, device, workers):
        inputs = features[indices].to(device) if images is None else gather_in_order(embed(images), len(indices))
        targets = labels[indices].to(device)
        kept = torch.cat([torch.ones(len(indices), 1), part[indices, None] != torch.arange(parts)], dim=1).to(device)
        loss = torch.stack([_loss(head(inputs), targets, kept, classes) for head in heads]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        advance(1)
    return _choose(heads, features, labels, part, parts, classes, protocol)


def sgd_steps(protocol: SgdProtocol, images: int) -> int:
    """Number of batches in all: an incomplete one at an epoch's end is left out."""
    return protocol.epochs * (images // min(protocol.batch_size, images))


def held_out_parts(labels: Tensor, images: int) -> tuple[Tensor, int]:
    """The part of each image, (N,) in 0..4, and how many parts are held out in turn to reach that many images."""
    part = split_parts(labels, PARTS)
    return part, min(PARTS, -(-images * PARTS // len(labels)))


def count_right(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> int:
    """How many labels have the largest logit."""
    return int((F.linear(features.double(), weight, bias).argmax(dim=1) == labels).sum())


def gather_in_order(own: Tensor, count: int) -> Tensor:
    """All `count` rows, in every process, from each process's `process_share` of them."""
    if process_count() == 1:
        return own
    order = torch.cat([torch.arange(index, count, process_count()) for index in range(process_count())])
    return gather_rows(own)[order.argsort().to(own.device)]


def _augmented_batches(
    image_set: ImageSet, protocol: SgdProtocol, size: int, device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The indices of each batch, and this process's share of its images, cropped and flipped, or None without.

    Images are float32 (B, 3, px, px) in 0..255.

    Every process draws for the whole batch, so that their number does not matter. Torch's random state is not moved.
    """
    share = process_share(size)
    draw = CropFlipGenerator(protocol.crop_scale, protocol.crop_ratio, protocol.flip_p)
    for epoch in range(protocol.epochs):
        chunks = epoch_order(len(image_set), seed=protocol.seed, epoch=epoch).split(size)
        chunks = [chunk for chunk in chunks if len(chunk) == size]
        if not protocol.augments:
            yield from ((chunk, None) for chunk in chunks)
            continue
        own = torch.cat([chunk[share] for chunk in chunks])
        batches = iterate_batches(
            image_set, own, batch_size=len(share), device=device, workers=workers, drop_last=False
        )
        for step, (indices, batch) in enumerate(zip(chunks, batches, strict=True)):
            with torch.random.fork_rng(devices=[]):
                seed = np.random.SeedSequence((protocol.seed, epoch, step)).generate_state(1, np.uint64)[0]
                torch.default_generator.manual_seed(int(seed))
                drawn = draw((size, *batch.images.shape[1:]))
            box, flip = drawn["box"][share], drawn["flip"][share]
            yield indices, crop_resize_flip(batch.images.float(), box, flip, batch.images.shape[-1], antialias=True)


def _loss(logits: Tensor, targets: Tensor, kept: Tensor, classes: int) -> Tensor:
    """The sum over layers of their mean cross-entropy over the images that they may see.

    Args:
        logits: (B, layers * classes).
        targets: (B,).
        kept: (B, layers), 1 for an image that a layer may see.
        classes: how many.
    """
    each = F.cross_entropy(logits.view(-1, classes), targets.repeat_interleave(kept.shape[1]), reduction="none")
    return ((each.view_as(kept) * kept).sum(dim=0) / kept.sum(dim=0).clamp(min=1)).sum()


def _choose(
    heads: list[nn.Linear],
    features: Tensor,
    labels: Tensor,
    part: Tensor,
    parts: int,
    classes: int,
    protocol: SgdProtocol,
) -> LinearFit:
    """The layer of all images whose rate has most held-out images right, in the layers that did not see them."""
    right, layers = [], []
    for head in heads:
        weights = head.weight.detach().cpu().double().view(1 + parts, classes, -1)
        biases = head.bias.detach().cpu().double().view(1 + parts, classes)
        layers.append((weights[0], biases[0]))
        right.append(
            sum(
                count_right(features[part == held], labels[part == held], weights[1 + held], biases[1 + held])
                for held in range(parts)
            )
        )
    count = int((part < parts).sum())
    best = right.index(max(right))
    scores = {rate: hits / count for rate, hits in zip(protocol.learning_rates, right, strict=True)}
    return LinearFit(*layers[best], protocol.learning_rates[best], scores, count)
