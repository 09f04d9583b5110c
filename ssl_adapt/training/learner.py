"""The learner: a network, what adapts it, the optimisers of both, and one step of each."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.backbones.memory_format import choose_memory_format
from ssl_adapt.data import Batch
from ssl_adapt.objectives.base import Objective
from ssl_adapt.processes import average, check_same_everywhere, process_count, sum_all
from ssl_adapt.recipe import AdaptSection, Recipe, TrainSection
from ssl_adapt.training.accumulation import backward_in_parts
from ssl_adapt.training.batch_norm import synchronise_batch_norm
from ssl_adapt.training.optimizers import (
    create_theta_optimizer,
    create_weight_optimizer,
    keep_only,
    layer_rates,
    set_lr,
)
from ssl_adapt.training.setting import prepare


@dataclass
class Learner:
    """Everything that a step changes.

    Attributes:
        objective: what the network is trained for; it holds the network.
        prepared: the same network as accelerate wrapped it; the weights' pass goes through it.
        weight_optimizer: of the network's weights.
        adaptation: None once the architecture is fixed, or when it never adapts.
        theta_optimizer: None likewise.
        accelerator: device and mixed precision.
        train: how the weights are trained.
        adapt: how the architecture adapts; None for a network that never does.
        image_px: side of the images.
        memory_format: of the network and its images.
        stop_came: whether this process was told to end the run.
        must_stop: whether any process had been told so when the last pass ended; the same in all of them.
        gradient_norm: of the weights in their last step, before it was clipped; NaN before the first.
    """

    objective: Objective
    prepared: nn.Module
    weight_optimizer: Optimizer
    adaptation: Adaptation | None
    theta_optimizer: Optimizer | None
    accelerator: Accelerator
    train: TrainSection
    adapt: AdaptSection | None
    image_px: int
    memory_format: torch.memory_format
    stop_came: Callable[[], bool]
    must_stop: bool = False
    gradient_norm: float = math.nan

    @property
    def network(self) -> Any:
        """The objective's network, as it is."""
        return self.objective.network

    def views(self, batch: Batch) -> list[Tensor]:
        """What the objective makes of a batch, images in the network's memory format."""
        return [
            tensor.contiguous(memory_format=self.memory_format) if tensor.ndim == 4 else tensor
            for tensor in self.objective.views(batch)
        ]

    def train_weights(self, views: Sequence[Tensor], lr: float, progress: float) -> float | None:
        """One step of the weights, theta fixed; the loss of the whole batch.

        None if that or the gradient is not finite: everything is then as it was before.

        Args:
            views: what `views` gave.
            lr: learning rate.
            progress: the share of the run's steps that are done after this one.
        """
        set_lr(self.weight_optimizer, lr)
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        loss = backward_in_parts(self.objective, self.prepared, views, self.train.accumulate, self.accelerator)
        if self.train.clip_grad_norm is not None:
            norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.train.clip_grad_norm)
        else:
            norm = get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        mean_loss, self.gradient_norm = self._agree(loss, norm)
        if mean_loss is not None:
            self.weight_optimizer.step()
            self._average_statistics()
            self.objective.after_step(progress)
        else:
            restore(statistics)
        self.weight_optimizer.zero_grad()
        return mean_loss

    def train_theta(self, views: Sequence[Tensor]) -> float | None:
        """One step of theta, the weights fixed: the second half of a step of the architecture stage.

        The loss of the whole batch, or None as in `train_weights`.
        """
        assert self.adaptation is not None
        assert self.theta_optimizer is not None
        assert self.adapt is not None
        update_bn = self.adapt.theta_updates_bn
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()] if update_bn else []
        # Past accelerate's wrapper, which knows the weights alone: theta's gradients are averaged here.
        with self.adaptation.architecture_pass(self.network, update_bn=update_bn):
            loss = backward_in_parts(self.objective, self.network, views, self.train.accumulate, self.accelerator)
        gradients = [p.grad for p in self.adaptation.theta_parameters() if p.grad is not None]
        average(gradients)
        mean_loss, _ = self._agree(loss, get_total_norm(gradients))
        if mean_loss is not None:
            self.theta_optimizer.step()
            if update_bn:
                self._average_statistics()
        else:
            restore(statistics)
        self.theta_optimizer.zero_grad()
        return mean_loss

    def check_theta(self) -> None:
        """Compare theta over all processes.

        Raises:
            RuntimeError: if it differs anywhere.
        """
        if self.adaptation is not None:
            check_same_everywhere(torch.stack([*self.adaptation.theta_parameters()]), "theta")

    def set_drop_path(self, progress: float) -> None:
        """Drop paths with a probability that rises linearly; `progress` is 0 at the run's start, 1 at its end."""
        if self.train.drop_path is not None:
            for module in self.network.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = self.train.drop_path * progress

    def fix(self) -> Architecture:
        """Discretise the architecture; the weights that are left train on with their optimiser's state.

        Raises:
            RuntimeError: if theta differs between the processes.
        """
        self.check_theta()
        assert self.adaptation is not None
        assert self.adapt is not None
        architecture = self.adaptation.fix(self.adapt.scale)
        self.adaptation = self.theta_optimizer = None
        keep_only(self.weight_optimizer, self.network.parameters())
        if process_count() > 1:  # the wrapper waits for the gradients of weights that are gone
            self.prepared = self.network
            self.accelerator.free_memory()
            self.prepared, self.weight_optimizer = prepare(
                self.accelerator, self.network, self.weight_optimizer, self.image_px
            )
        return architecture

    def state_dict(self) -> dict[str, Any]:
        """Weights, theta, both optimisers, and the architecture once it is fixed."""
        adapts, fixed = self.adapt is not None, self.adaptation is None
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

    def _average_statistics(self) -> None:
        """The mean over the processes takes the place of BatchNorm's running statistics, where each has its own."""
        if not self.train.sync_batchnorm:
            average([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])

    def _agree(self, loss: Tensor, gradient_norm: Tensor) -> tuple[float | None, float]:
        """The mean loss, None if a loss or gradient is not finite in any process, and the mean norm; sets `must_stop`.

        All processes learn the same here, and do the same. It is the only place where a pass waits for the device: one
        reduction, one transfer. It can't wait for the next line of the log, as optimisers count steps on the host: an
        update that must not happen is not begun.
        """
        is_broken = ~(loss.isfinite() & gradient_norm.isfinite())
        stop_came = loss.new_full((), self.stop_came())
        mine = torch.stack([loss, *(number.to(loss) for number in (gradient_norm, is_broken, stop_came))])
        mean_loss, mean_norm, broken, stopped = sum_all(mine / process_count()).tolist()
        self.must_stop = stopped > 0
        return (None if broken > 0 else mean_loss), mean_norm


def create_learner(
    recipe: Recipe,
    objective: Objective,
    accelerator: Accelerator,
    architecture: Mapping[str, Any] | None = None,
    stop_came: Callable[[], bool] = lambda: False,
) -> Learner:
    """A fresh learner.

    Args:
        recipe: its sections train and adapt, and the size of its images.
        objective: what the network is trained for.
        accelerator: device, processes and mixed precision.
        architecture: that of a run that goes on after its fix.
        stop_came: whether this process was told to end the run.

    Raises:
        ValueError: if timm does not know the model, or it cannot be adapted.
    """
    network: Any = objective.network.to(accelerator.device)
    bfloat16 = accelerator.mixed_precision == "bf16"  # the format is the plain network's, so that a resume finds it too
    memory_format = choose_memory_format(network, accelerator.device, bfloat16=bfloat16)
    rates = layer_rates(network.backbone, recipe.train.layer_decay)
    adaptation = theta_optimizer = None
    if architecture is not None:
        for backbone in (network.backbone, *network.teacher_backbones):
            apply_architecture(backbone, Architecture.from_dict(architecture))
    elif recipe.adapt is not None:
        adaptation = create_adaptation(network.backbone, recipe.adapt, network.teacher_backbones)
        theta_optimizer = create_theta_optimizer(adaptation.theta_parameters(), recipe.adapt)
    if process_count() > 1 and recipe.train.sync_batchnorm:
        synchronise_batch_norm(network, accelerator.device)
    network.to(memory_format=memory_format)
    weight_optimizer = create_weight_optimizer(network, recipe.train, accelerator.device, rates)
    prepared, weight_optimizer = prepare(accelerator, network, weight_optimizer, recipe.data.image_px)
    return Learner(
        objective=objective,
        prepared=prepared,
        weight_optimizer=weight_optimizer,
        adaptation=adaptation,
        theta_optimizer=theta_optimizer,
        accelerator=accelerator,
        train=recipe.train,
        adapt=recipe.adapt,
        image_px=recipe.data.image_px,
        memory_format=memory_format,
        stop_came=stop_came,
    )


def create_adaptation(backbone: nn.Module, adapt: AdaptSection, followers: Sequence[nn.Module] = ()) -> Adaptation:
    """The backbone's edges made mixed, and those of the networks that follow it, as the recipe's `adapt` says."""
    return Adaptation(
        backbone,
        followers=followers,
        sharing=adapt.sharing,
        shape_change=adapt.shape_change,
        none_rule=adapt.none_rule,
        none_threshold=adapt.none_threshold,
        none_start=adapt.none_start,
        on_dead=adapt.on_dead,
        choices=adapt.choices,
    )


def restore(copies: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give each tensor the values of its copy again."""
    for tensor, copy in copies:
        tensor.copy_(copy)
