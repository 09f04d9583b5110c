"""The online probe: a linear classifier that learns beside a run on its features, and changes nothing in it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_adapt.data import ImageSet
from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.accuracy import Accuracy, evaluate_accuracy
from ssl_adapt.evaluation.features import evaluation_mode
from ssl_adapt.evaluation.monitor import FeatureMonitor, Monitor
from ssl_adapt.objectives.base import feature_width
from ssl_adapt.processes import average, process_index, sum_all

LEARNING_RATE = 1e-3  # of Adam


class EpochScore(NamedTuple):
    """Over an epoch's images, each before the step that it was used for; NaN without any."""

    top1: float
    loss: float


class OnlineProbe:
    """A linear layer on the features of the first view, with an optimiser of its own.

    Features come from the backbone in evaluation mode without gradients: a pass of its own, which leaves BatchNorm's
    statistics and all random numbers alone. Each feature vector is normalised (layer_norm without weights), so
    that one learning rate serves all networks.

    Args:
        backbone: without a classifier.
        classes: number of classes.
        device: where the backbone is.
    """

    def __init__(self, backbone: nn.Module, classes: int, device: torch.device) -> None:
        self.head = nn.utils.skip_init(nn.Linear, feature_width(backbone), classes, device=device)
        nn.init.zeros_(self.head.weight)  # and no random number is drawn
        nn.init.zeros_(self.head.bias)
        self.optimizer = torch.optim.Adam(self.head.parameters(), LEARNING_RATE)
        self.sums = torch.zeros(3, device=device)  # right, loss, images of the epoch so far

    def train(self, backbone: nn.Module, images: Tensor, labels: Tensor) -> None:
        """One step of the linear layer on normalised images (B, 3, H, W) and their labels (B,).

        Distributed: collective: each process gives its share of the batch, and gradients are averaged.
        """
        logits = self.head(self._features(backbone, images))
        loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        average([parameter.grad for parameter in self.head.parameters() if parameter.grad is not None])
        self.optimizer.step()
        with torch.no_grad():
            right = (logits.argmax(dim=1) == labels).sum()
            count = torch.full_like(loss, len(labels))
            self.sums += torch.stack([right.to(loss), loss * count, count])

    def end_epoch(self) -> EpochScore:
        """The score of the epoch's batches, and a fresh start.

        Distributed: collective: over the batches of all processes.
        """
        right, loss, count = sum_all(self.sums).tolist()
        self.sums = torch.zeros_like(self.sums)
        return EpochScore(right / count, loss / count) if count else EpochScore(float("nan"), float("nan"))

    def evaluate(self, backbone: nn.Module, images: ImageSet, monitor: FeatureMonitor) -> Accuracy:
        """Accuracy on these images, not augmented; batches and normalisation are the monitor's.

        Distributed: collective, see `evaluate_accuracy`.
        """
        with evaluation_mode(backbone):
            return evaluate_accuracy(
                lambda batch: self.head(self._features(backbone, batch)), images, mean=monitor.mean, std=monitor.std,
                batch_size=monitor.batch_size, device=monitor.device, workers=monitor.workers,
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The layer, its optimiser, and what the epoch has summed up in all processes, which is collective."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(), "sums": sum_all(self.sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sums = state["sums"].to(self.head.weight.device) * (process_index() == 0)

    def _features(self, backbone: nn.Module, images: Tensor) -> Tensor:
        with evaluation_mode(backbone), torch.no_grad():
            features: Tensor = backbone(images).float()
        return F.layer_norm(features, features.shape[1:])


def measure_probe(probe: OnlineProbe, backbone: nn.Module, monitor: Monitor, *, on_test: bool) -> dict[str, float]:
    """What the epoch's batches gave, and on the monitor's test images too if asked; for the log.

    Distributed: collective.
    """
    top1, loss = probe.end_epoch()
    values = {"probe_train_top1": top1, "probe_train_loss": loss} if loss == loss else {}
    if on_test and isinstance(monitor, FeatureMonitor) and monitor.queries is not None:
        values["probe_top1"] = probe.evaluate(backbone, monitor.queries, monitor).top1
    return values


def create_online_probe(backbone: nn.Module, train_set: ImageSet, device: torch.device) -> OnlineProbe:
    """The online probe of a run without labels in its loss.

    Raises:
        ValueError: the images have no labels.
    """
    if train_set.labels is None:
        raise UserError(
            f"run.online_probe=true needs labels to learn from, and the images of {train_set.name!r} have none: "
            "leave it out"
        )
    return OnlineProbe(backbone, len(train_set.classes), device)
