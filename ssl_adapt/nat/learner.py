"""What a search trains: the weights of the supernet, and the controller by reinforcement."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from ssl_adapt.backbones.genotypes import Genotype
from ssl_adapt.backbones.memory_format import choose_memory_format
from ssl_adapt.data import Batch
from ssl_adapt.nat.controller import Controller
from ssl_adapt.nat.settings import SearchSettings
from ssl_adapt.nat.supernet import Subnetwork, Supernet
from ssl_adapt.nat.transitions import candidate_operations, draw_genotype
from ssl_adapt.objectives.simclr import create_projector
from ssl_adapt.recipe import ObjectiveSection
from ssl_adapt.training.tasks import Inputs, Task


class NatLearner:
    """Supernet, controller and their optimisers.

    Only the weights that a batch has used take part in its step, with their momentum and weight decay.

    Args:
        objective: of the recipe.
        task: what the weights are trained for.
        form: a genotype of the form to search in.
        num_classes: of the images; not used in self-supervised runs.
        settings: how to search.
        device: of the supernet.
    """

    def __init__(
        self,
        objective: ObjectiveSection,
        task: Task,
        form: Genotype,
        num_classes: int,
        settings: SearchSettings,
        device: torch.device,
    ) -> None:
        self.task = task
        self.form = form
        self.settings = settings
        self.device = device
        self.is_simclr = objective.name == "simclr"
        self.operations = candidate_operations(form)
        self.supernet = Supernet(
            form,
            channels=settings.channels,
            cells=settings.cells,
            num_classes=0 if self.is_simclr else num_classes,
        ).to(device)
        self.head: nn.Module = nn.Identity()
        if self.is_simclr:
            hidden, out = objective.projector_hidden, objective.projector_out
            self.head = create_projector(self.supernet.num_features, cast(int, hidden), cast(int, out)).to(device)
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
            inputs = self._augment(batch)
            outputs = self._outputs(draw_genotype(self.form, self.operations), inputs)
            loss = self.task.loss(outputs, inputs)
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(f"the weights' loss is {value}: lower weight_lr={self.settings.weight_lr}")
            self.weight_optimizer.zero_grad()
            loss.backward()
            self.weight_optimizer.step()
            yield value

    def train_controller(self, batches: Iterable[Batch]) -> Iterator[tuple[float, float]]:
        """Train the controller on a transform of a random genotype for each batch; reward and entropy, step by step.

        The reward is what the transform adds to the batch's score, see `score`.
        """
        for batch in batches:
            inputs = self._augment(batch)
            genotype = draw_genotype(self.form, self.operations)
            transform = self.controller.draw(genotype)
            reward = self._score(transform.genotype, inputs) - self._score(genotype, inputs)
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
            inputs = self._augment(batch)
            rows.append([self._score(genotype, inputs) for genotype in genotypes])
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """All that steps change."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "baseline": self.baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
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

    def _augment(self, batch: Batch) -> Inputs:
        images, other = self.task.augment(batch)
        other = other.contiguous(memory_format=self.memory_format) if other.ndim == 4 else other
        return images.contiguous(memory_format=self.memory_format), other

    def _outputs(self, genotype: Genotype, inputs: Inputs) -> Any:
        return self.task.forward(Subnetwork(self.supernet, self.head, genotype), inputs)

    @torch.no_grad()
    def _score(self, genotype: Genotype, inputs: Inputs) -> float:
        outputs = self._outputs(genotype, inputs)
        if self.is_simclr:
            return -self.task.loss(outputs, inputs).item()
        accuracy: float = (outputs.argmax(dim=1) == inputs[1]).float().mean().item()
        return accuracy
