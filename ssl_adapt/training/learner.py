"""The learner: a network, what adapts it, the optimisers of both, and one step of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.recipe import AdaptSection, Recipe, TrainSection
from ssl_adapt.training.tasks import Inputs, Task


@dataclass
class Learner:
    """Everything that a step changes.

    Attributes:
        task: what the network is trained for.
        network: backbone and heads, as they are.
        prepared: the same network as accelerate wrapped it; the weights' pass goes through it.
        weight_optimizer: of the network's weights.
        adaptation: None once the architecture is fixed, or when it never adapts.
        theta_optimizer: None likewise.
        accelerator: device and mixed precision.
        recipe: read only.
    """

    task: Task
    network: Any
    prepared: nn.Module
    weight_optimizer: Optimizer
    adaptation: Adaptation | None
    theta_optimizer: Optimizer | None
    accelerator: Accelerator
    recipe: Recipe

    def train_weights(self, inputs: Inputs, lr: float) -> Tensor:
        """One step of the weights, theta fixed; the loss (a detached scalar on the device)."""
        for group in self.weight_optimizer.param_groups:
            group["lr"] = lr
        loss = self._loss(self.prepared, inputs)
        self.accelerator.backward(loss)
        if self.recipe.train.clip_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.train.clip_grad_norm)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad()
        return loss.detach()

    def train_theta(self, inputs: Inputs) -> None:
        """One step of theta, the weights fixed: the second half of a step of the architecture stage."""
        assert self.adaptation is not None
        assert self.theta_optimizer is not None
        assert self.recipe.adapt is not None
        update_bn = self.recipe.adapt.theta_updates_bn
        with self.adaptation.architecture_pass(*self.network.heads, update_bn=update_bn):
            self.accelerator.backward(self._loss(self.network, inputs))
        self.theta_optimizer.step()
        self.theta_optimizer.zero_grad()

    def set_drop_path(self, progress: float) -> None:
        """Drop paths with a probability that rises linearly; `progress` is 0 at the run's start, 1 at its end."""
        if self.recipe.train.drop_path is not None:
            for module in self.network.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = self.recipe.train.drop_path * progress

    def fix(self) -> Architecture:
        """Discretise the architecture; the weights that are left train on with their optimiser's state."""
        assert self.adaptation is not None
        assert self.recipe.adapt is not None
        architecture = self.adaptation.fix(self.recipe.adapt.scale)
        self.adaptation = self.theta_optimizer = None
        keep_only(self.weight_optimizer, self.network.parameters())
        return architecture

    def state_dict(self) -> dict[str, Any]:
        """Weights, theta, both optimisers, and the architecture once it is fixed."""
        adapts, fixed = self.recipe.adapt is not None, self.adaptation is None
        return {
            "architecture": Architecture.of(self.network.backbone).to_dict() if adapts and fixed else None,
            "network": self.network.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "adaptation": None if self.adaptation is None else self.adaptation.state_dict(),
            "theta_optimizer": None if self.theta_optimizer is None else self.theta_optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; the learner must have been created with its architecture."""
        self.network.load_state_dict(state["network"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        if self.adaptation is not None and self.theta_optimizer is not None:
            self.adaptation.load_state_dict(state["adaptation"])
            self.theta_optimizer.load_state_dict(state["theta_optimizer"])

    def _loss(self, network: nn.Module, inputs: Inputs) -> Tensor:
        with self.accelerator.autocast():
            outputs = self.task.forward(network, inputs)
        return self.task.loss(outputs, inputs)


def create_learner(
    recipe: Recipe, task: Task, accelerator: Accelerator, architecture: Mapping[str, Any] | None = None
) -> Learner:
    """A fresh learner; `architecture` is that of a run that goes on after its fix.

    Raises:
        ValueError: if timm does not know the model, or it cannot be adapted.
    """
    network: Any = task.create_network().to(accelerator.device)
    adaptation = theta_optimizer = None
    if architecture is not None:
        apply_architecture(network.backbone, Architecture.from_dict(architecture))
    elif recipe.adapt is not None:
        adaptation = create_adaptation(network.backbone, recipe.adapt)
        theta_optimizer = create_theta_optimizer(adaptation.theta_parameters(), recipe.adapt)
    network.to(memory_format=torch.channels_last)  # on a GPU too (not run on one)
    prepared, weight_optimizer = accelerator.prepare(
        network, create_weight_optimizer(network.parameters(), recipe.train, accelerator.device)
    )
    return Learner(task, network, prepared, weight_optimizer, adaptation, theta_optimizer, accelerator, recipe)


def create_adaptation(backbone: nn.Module, adapt: AdaptSection) -> Adaptation:
    """The backbone's edges made mixed, as the recipe's `adapt` says."""
    return Adaptation(
        backbone,
        sharing=adapt.sharing,
        shape_change=adapt.shape_change,
        none_rule=adapt.none_rule,
        none_threshold=adapt.none_threshold,
        on_dead=adapt.on_dead,
    )


def create_weight_optimizer(parameters: Iterable[nn.Parameter], train: TrainSection, device: torch.device) -> Optimizer:
    """Adam, AdamW or SGD with momentum; fused kernels on a GPU (not run on a GPU)."""
    fused = device.type == "cuda"
    if train.optimizer == "sgd":
        assert train.momentum is not None
        return SGD(parameters, train.lr, train.momentum, weight_decay=train.weight_decay, fused=fused)
    kind = AdamW if train.optimizer == "adamw" else Adam
    return kind(parameters, train.lr, weight_decay=train.weight_decay, fused=fused)


def create_theta_optimizer(parameters: Iterable[nn.Parameter], adapt: AdaptSection) -> Optimizer:
    """Adam on theta; theta_none never moves, as its gradient is 0 and nothing decays it by default."""
    return Adam(parameters, adapt.theta_lr, betas=adapt.theta_betas, weight_decay=adapt.theta_weight_decay)


def keep_only(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Make the optimiser forget, with their state, all parameters but these."""
    kept = set(parameters)
    for group in optimizer.param_groups:
        for parameter in set(group["params"]) - kept:
            optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if parameter in kept]
