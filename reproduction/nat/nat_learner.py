"""The training in a search: of the supernet's weights, and of the controller by REINFORCE."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from reproduction.nat.controller import Controller
from reproduction.nat.settings import SearchSettings
from reproduction.nat.supernet import Subnetwork, Supernet
from reproduction.nat.transitions import candidate_operations, draw_genotype
from ssl_adapt.backbones.genotypes import Genotype
from ssl_adapt.backbones.memory_format import choose_memory_format
from ssl_adapt.data import Batch
from ssl_adapt.errors import DivergedError
from ssl_adapt.objectives.base import Objective, create_mlp
from ssl_adapt.recipe import SimclrSection, SupervisedSection


class NatLearner:
    """Supernet, controller and their optimisers.

    Only the weights that a batch uses are changed by its step, also by momentum and weight decay.

    Args:
        objective: of the weights; of its network only the number of classes is used.
        create_head: makes the head after the supernet from its number of features.
        form: a genotype of the form to search in.
        settings: how to search.
        device: of the supernet.
    """

    def __init__(
        self,
        objective: Objective,
        create_head: Callable[[int], nn.Module],
        form: Genotype,
        settings: SearchSettings,
        device: torch.device,
    ) -> None:
        self.objective = objective
        self.form = form
        self.settings = settings
        self.device = device
        self.operations = candidate_operations(form)
        self.supernet = Supernet(
            form,
            channels=settings.channels,
            cells=settings.cells,
            num_classes=objective.network.backbone.num_classes,
        ).to(device)
        self.head = create_head(self.supernet.num_features).to(device)
        self.memory_format = choose_memory_format(self.supernet, device)
        self.supernet.to(memory_format=self.memory_format)
        self.weight_optimizer = SGD(
            [*self.supernet.parameters(), *self.head.parameters()],
            settings.weight_lr,
            momentum=settings.weight_momentum,
            weight_decay=settings.weight_decay,
        )
        self.controller = Controller(self.operations, self_loops=settings.self_loops)
        self.controller_optimizer = Adam(
            self.controller.parameters(),
            settings.controller_lr,
            betas=settings.controller_betas,
            weight_decay=settings.controller_decay,
        )
        self.baseline = 0.0

    def train_weights(self, batches: Iterable[Batch]) -> Iterator[float]:
        """Train the weights on each batch with a fresh random genotype; its loss, as each step is done.

        Raises:
            FloatingPointError: if a loss is not finite.
        """
        for batch in batches:
            views = self._views(batch)
            outputs = self._outputs(draw_genotype(self.form, self.operations), views)
            loss = self.objective.loss(outputs)
            value = loss.item()
            if not math.isfinite(value):
                raise DivergedError(f"the weights' loss is {value}: lower weight_lr={self.settings.weight_lr}")
            self.weight_optimizer.zero_grad()
            loss.backward()
            self.weight_optimizer.step()
            yield value

    def train_controller(self, batches: Iterable[Batch]) -> Iterator[tuple[float, float]]:
        """Train the controller on a transform of a random genotype for each batch; reward and entropy, step by step.

        The reward is the gain in the batch's score by the transform, see `score`.
        """
        for batch in batches:
            views = self._views(batch)
            genotype = draw_genotype(self.form, self.operations)
            transform = self.controller.draw(genotype)
            reward = self._score(transform.genotype, views) - self._score(genotype, views)
            advantage = reward - self.baseline
            loss = -transform.log_probability * advantage - self.settings.entropy_weight * transform.entropy
            self.controller_optimizer.zero_grad()
            loss.backward()
            self.controller_optimizer.step()
            shift = advantage if self.settings.baseline == "released" else reward
            self.baseline = 0.99 * self.baseline + 0.01 * shift
            yield reward, transform.entropy.item()

    def score(self, genotypes: Sequence[Genotype], batches: Iterable[Batch]) -> list[float]:
        """The mean over the batches of each genotype's accuracy in [0, 1], or of minus its NT-Xent loss.

        All genotypes see the same views of a batch.
        """
        rows = []
        for batch in batches:
            views = self._views(batch)
            rows.append([self._score(genotype, views) for genotype in genotypes])
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The state that steps change."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "baseline": self.baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.baseline = state["baseline"]

    def _parts(self) -> dict[str, nn.Module | Optimizer]:
        return {
            "supernet": self.supernet,
            "head": self.head,
            "weight_optimizer": self.weight_optimizer,
            "controller": self.controller,
            "controller_optimizer": self.controller_optimizer,
        }

    def _views(self, batch: Batch) -> list[Tensor]:
        return [
            tensor.contiguous(memory_format=self.memory_format) if tensor.ndim == 4 else tensor
            for tensor in self.objective.views(batch)
        ]

    def _outputs(self, genotype: Genotype, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.objective.forward(Subnetwork(self.supernet, self.head, genotype), views)

    @torch.no_grad()
    def _score(self, genotype: Genotype, views: Sequence[Tensor]) -> float:
        outputs = self._outputs(genotype, views)
        if self.objective.judge == "kNN":
            return -self.objective.loss(outputs).item()
        logits, labels = outputs
        return float((logits.argmax(dim=1) == labels).float().mean())


def create_head(objective: SimclrSection | SupervisedSection) -> Callable[[int], nn.Module]:
    """A function that makes the head after a supernet, from its number of features: a projector, or the identity."""
    if isinstance(objective, SupervisedSection):
        return lambda features: nn.Identity()
    return lambda features: create_mlp(features, objective.projector_hidden, objective.projector_out)
