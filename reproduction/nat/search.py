"""The search: trains supernet and controller in turns, then keeps the best of some drawn transforms."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from reproduction.nat.nat_learner import NatLearner, create_head
from reproduction.nat.settings import SearchSettings
from reproduction.nat.state import Epoch, Progress, SearchFolder, restore
from reproduction.nat.transitions import genotype_of
from ssl_adapt.backbones.genotypes import Genotype
from ssl_adapt.data import Batch, ImageSet, epoch_order, iterate_batches
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe, SimclrSection, SupervisedSection
from ssl_adapt.runs.same_recipe import FREE
from ssl_adapt.runs.stop_signal import InterruptedRunError, StopSignal
from ssl_adapt.training.objective import create_objective


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

    @classmethod
    def from_json(cls, text: str) -> "SearchResult":
        """The result that gave this text by `to_json`."""
        data = json.loads(text)
        settings = {**data["settings"], "controller_betas": tuple(data["settings"]["controller_betas"])}
        plain = {
            "genotype": Genotype.from_dict(data["genotype"]),
            "given": Genotype.from_dict(data["given"]),
            "scores": tuple(data["scores"]),
            "history": tuple(Epoch(**epoch) for epoch in data["history"]),
            "settings": SearchSettings(**settings),
        }
        return cls(**{**data, **plain})


def search(
    recipe: Recipe,
    train_set: ImageSet,
    settings: SearchSettings,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> SearchResult:
    """The best transform that NAT finds of the recipe's network, trained for the recipe's objective.

    Seed, views and objective are the recipe's, and so are the cells of the network; the supernet has its own width and
    depth. The views are drawn in all passes and at the end, where every transform sees the same.
    The same seed gives the same result on a CPU, also after a stop. Torch's global CPU generator is not changed.

    Args:
        recipe: of the search; its `train` and `adapt` are not used.
        train_set: images, split by `weight_share`; test images are never seen.
        settings: `PUBLISHED`, or a replacement.
        folder: of the search, which is saved after every epoch and at a stop signal. A search that was begun there
            is continued, and the result of a finished one is returned.
        device: of the supernet (not run on a GPU).
        report: called with a line for each epoch.

    Raises:
        ValueError: the network's cells differ or do not suit NAT, the images are too few for a batch, or the
            folder holds another search.
        FloatingPointError: if the loss is no longer finite.
        InterruptedRunError: if SIGTERM or Ctrl-C ended it; it is saved then.

    Distributed: not collective; a search runs in one process.
    """
    if not isinstance(recipe.objective, SimclrSection | SupervisedSection):
        raise UserError(f"objective.name={recipe.objective.name}: NAT searches with simclr or supervised alone")
    if isinstance(recipe.objective, SupervisedSection) and recipe.objective.mixup_alpha:
        raise UserError(
            f"objective.mixup_alpha={recipe.objective.mixup_alpha}: NAT is rewarded by the accuracy on images that are "
            "not mixed; set it to 0"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        objective = create_objective(recipe, train_set, on_meta=True)
        given = genotype_of(objective.network.backbone)
        parts = _split(len(train_set), settings, recipe.seed)
        learner = NatLearner(objective, create_head(recipe.objective), given, settings, torch.device(device))
        setting = {**recipe.model_dump(exclude={**FREE, "model": True}), **asdict(settings)}
        with SearchFolder(folder, {**setting, "training images": len(train_set)}, given) as kept, StopSignal() as stop:
            saved = kept.load()
            for problem in saved.damaged if saved else ():
                report(f"warning: a damaged checkpoint is skipped: {problem}")
            if saved and "result" in saved.state:
                report(f"this search has finished; its result is in {folder}")
                return SearchResult.from_json(saved.state["result"])
            progress = restore(saved, learner) if saved else Progress()
            if saved:
                report(f"resuming after step {saved.step:,}, in epoch {len(progress.history) + 1}")
            del saved  # as large as the supernet and its optimiser
            session = _Session(recipe, train_set, parts, learner, kept, stop, progress)
            session.train(report)
            result = session.choose(given)
            kept.save_result(progress.step, result.to_json())
    return result


@dataclass(frozen=True)
class _Session:
    """The part of a search in one process: to the end, or until a stop signal."""

    recipe: Recipe
    train_set: ImageSet
    parts: tuple[Tensor, Tensor]
    learner: NatLearner
    kept: SearchFolder
    stop: StopSignal
    progress: Progress

    def train(self, report: Callable[[str], None]) -> None:
        """The epochs that are left."""
        progress, epochs = self.progress, self.learner.settings.epochs
        weight_part, controller_part = self.parts
        while len(progress.history) < epochs:
            number = len(progress.history) + 1
            for loss in self.learner.train_weights(self.batches(weight_part, number, len(progress.losses))):
                progress.losses.append(loss)
                self.end_step()
            images = self.batches(controller_part, number, len(progress.rewards))
            for reward, entropy in self.learner.train_controller(images):
                progress.rewards.append(reward)
                progress.entropies.append(entropy)
                self.end_step()
            epoch = progress.end_epoch(self.learner.baseline)
            self.kept.save(progress, self.learner)
            report(
                f"epoch {number}/{epochs}: loss {epoch.loss:.4f}, reward {epoch.reward:+.4f}, "
                f"entropy {epoch.entropy:.2f}, {epoch.seconds:.1f} s"
            )

    def choose(self, given: Genotype) -> SearchResult:
        """The best of some drawn transforms; nothing is saved before the end, as it follows from the last epoch."""
        learner, progress = self.learner, self.progress
        drawn = [learner.controller.draw(given).genotype for _ in range(learner.settings.transforms)]
        given_score, *scores = learner.score([given, *drawn], self.until_stopped(self.batches(self.parts[1], 0, 0)))
        best = max(range(len(drawn)), key=scores.__getitem__)
        return SearchResult(
            drawn[best],
            given,
            scores[best],
            given_score,
            tuple(scores),
            tuple(progress.history),
            progress.elapsed(),
            learner.settings,
        )

    def batches(self, part: Tensor, epoch: int, done: int) -> Iterator[Batch]:
        """The batches of an epoch after the first `done`."""
        size = self.learner.settings.batch_size
        order = part[epoch_order(len(part), seed=self.recipe.seed, epoch=epoch)][done * size :]
        workers, device = self.recipe.data.workers, self.learner.device
        return iterate_batches(self.train_set, order, batch_size=size, device=device, workers=workers, drop_last=True)

    def end_step(self) -> None:
        """Count a batch, and save the search after a stop signal."""
        self.progress.step += 1
        if self.stop.came():
            self.kept.save(self.progress, self.learner)
            self.leave()

    def until_stopped(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, until a stop signal."""
        for batch in batches:
            yield batch
            if self.stop.came():
                self.leave()

    def leave(self) -> NoReturn:
        """End the search, which is saved, after a stop signal."""
        raise InterruptedRunError(self.stop.number, self.progress.step, again="the same command")


def _split(count: int, settings: SearchSettings, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images for the weights and for the controller, each enough for a batch."""
    first = round(settings.weight_share * count)
    parts = epoch_order(count, seed=seed, epoch=0).tensor_split([first])
    smallest = min(map(len, parts))
    if smallest < settings.batch_size:
        raise UserError(
            f"batch_size={settings.batch_size} is more than the {smallest} images that weight_share="
            f"{settings.weight_share} leaves to the smaller part of {count}: lower it to {smallest} at most"
        )
    return parts[0], parts[1]
