"""The search: supernet and controller take turns, then the best of some drawn transforms is kept."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ssl_adapt.backbones.genotypes import Genotype
from ssl_adapt.data import Batch, ImageSet, epoch_order, iterate_batches
from ssl_adapt.nat.learner import NatLearner
from ssl_adapt.nat.settings import SearchSettings
from ssl_adapt.nat.transitions import genotype_of
from ssl_adapt.recipe import Recipe
from ssl_adapt.training.tasks import create_backbone, create_task


@dataclass(frozen=True)
class Epoch:
    """What one epoch was like.

    Attributes:
        loss: mean of the weights'.
        reward: mean of what the controller's transforms add to a batch's score.
        entropy: mean of the controller's, summed over the edges of both cells.
        baseline: at the end.
        seconds: of both passes.
    """

    loss: float
    reward: float
    entropy: float
    baseline: float
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """What NAT found.

    Attributes:
        genotype: the best of the drawn transforms; it is to be trained from scratch.
        given: the genotype that it is a transform of.
        score: of `genotype` with the supernet's weights on the controller's images: the mean accuracy in [0, 1], or
            minus the mean NT-Xent loss.
        given_score: that of `given`, which does not take part in the choice.
        scores: of all drawn transforms, in their order.
        history: one entry an epoch.
        seconds: the whole search; training from scratch comes on top.
        settings: how it searched.
    """

    genotype: Genotype
    given: Genotype
    score: float
    given_score: float
    scores: tuple[float, ...]
    history: tuple[Epoch, ...]
    seconds: float
    settings: SearchSettings

    def to_json(self) -> str:
        """All of it as text."""
        data = {**asdict(self), "genotype": self.genotype.to_dict(), "given": self.given.to_dict()}
        return json.dumps(data, indent=2, allow_nan=False) + "\n"


def search(
    recipe: Recipe,
    train_set: ImageSet,
    settings: SearchSettings,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> SearchResult:
    """The best transform that NAT finds of the recipe's network, trained for the recipe's objective.

    Seed, views and objective are the recipe's, and so is the network, of which the cells alone count: the supernet has
    its own width and depth. The views are drawn in all passes and at the end, where every transform sees the same.
    The same seed gives the same result on a CPU. Torch's global CPU generator is left as it was.

    Args:
        recipe: what to search for; its `train` and `adapt` are not used.
        train_set: images, split by `weight_share`; test images are never seen.
        settings: `PUBLISHED`, or a replacement.
        device: of the supernet (not run on a GPU).
        report: is told a line an epoch.

    Raises:
        ValueError: the network's cells differ or are no cells for NAT, or the images are too few for a batch.
        FloatingPointError: if the loss is no longer finite.

    Distributed: not collective; one process searches alone.
    """
    if recipe.objective.mixup_alpha:
        raise ValueError(
            f"objective.mixup_alpha={recipe.objective.mixup_alpha}: NAT is rewarded by the accuracy on images that are "
            "not mixed; set it to 0"
        )
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        task = create_task(recipe, train_set)
        given = genotype_of(create_backbone(recipe, num_classes=len(train_set.classes)))
        weight_part, controller_part = _split(len(train_set), settings, recipe.seed)
        learner = NatLearner(recipe.objective, task, given, len(train_set.classes), settings, torch.device(device))

        def batches(part: Tensor, epoch: int) -> Iterator[Batch]:
            order = part[epoch_order(len(part), seed=recipe.seed, epoch=epoch)]
            workers, size = recipe.data.workers, settings.batch_size
            return iterate_batches(
                train_set, order, batch_size=size, device=learner.device, workers=workers, drop_last=True
            )

        history = []
        for epoch in range(1, settings.epochs + 1):
            before = time.perf_counter()
            loss = learner.train_weights(batches(weight_part, epoch))
            reward, entropy = learner.train_controller(batches(controller_part, epoch))
            history.append(Epoch(loss, reward, entropy, learner.baseline, time.perf_counter() - before))
            report(
                f"epoch {epoch}/{settings.epochs}: loss {loss:.4f}, reward {reward:+.4f}, entropy {entropy:.2f}, "
                f"{history[-1].seconds:.1f} s"
            )
        drawn = [learner.controller.draw(given).genotype for _ in range(settings.transforms)]
        given_score, *scores = learner.score([given, *drawn], batches(controller_part, 0))
    best = max(range(len(drawn)), key=scores.__getitem__)
    seconds = time.perf_counter() - start
    return SearchResult(drawn[best], given, scores[best], given_score, tuple(scores), tuple(history), seconds, settings)


def _split(count: int, settings: SearchSettings, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images for the weights and for the controller, each enough for a batch."""
    first = round(settings.weight_share * count)
    parts = epoch_order(count, seed=seed, epoch=0).tensor_split([first])
    smallest = min(map(len, parts))
    if smallest < settings.batch_size:
        raise ValueError(
            f"batch_size={settings.batch_size} is more than the {smallest} images that weight_share="
            f"{settings.weight_share} leaves to the smaller part of {count}: lower it to {smallest} at most"
        )
    return parts[0], parts[1]
