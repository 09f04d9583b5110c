"""The learner: a network, what adapts it, the optimisers of both, and one step of each."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Adam, AdamW, Optimizer

from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.backbones.memory_format import choose_memory_format
from ssl_adapt.data import Batch
from ssl_adapt.objectives.base import Objective
from ssl_adapt.processes import any_process, average, check_same_everywhere, process_count
from ssl_adapt.recipe import AdaptSection, Recipe, TrainSection
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.training.accumulation import backward_in_parts
from ssl_adapt.training.batch_norm import synchronise_batch_norm


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
        recipe: read only.
        memory_format: of the network and its images.
        gradient_norm: of the weights in their last step, before it was clipped; NaN before the first.
    """

    objective: Objective
    prepared: nn.Module
    weight_optimizer: Optimizer
    adaptation: Adaptation | None
    theta_optimizer: Optimizer | None
    accelerator: Accelerator
    recipe: Recipe
    memory_format: torch.memory_format
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
        for group in self.weight_optimizer.param_groups:
            group["lr"] = lr
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        loss = backward_in_parts(self.objective, self.prepared, views, self.recipe.train.accumulate, self.accelerator)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if self.recipe.train.clip_grad_norm is not None:
            norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.train.clip_grad_norm)
        else:
            norm = get_total_norm(gradients)
        self.gradient_norm = float(norm)
        is_finite = self._is_finite(loss, norm)
        if is_finite:
            self.weight_optimizer.step()
            self._average_statistics()
            self.objective.after_step(progress)
        else:
            restore(statistics)
        self.weight_optimizer.zero_grad()
        return loss if is_finite else None

    def train_theta(self, views: Sequence[Tensor]) -> float | None:
        """One step of theta, the weights fixed: the second half of a step of the architecture stage.

        The loss of the whole batch, or None as in `train_weights`.
        """
        assert self.adaptation is not None
        assert self.theta_optimizer is not None
        assert self.recipe.adapt is not None
        update_bn = self.recipe.adapt.theta_updates_bn
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()] if update_bn else []
        # Past accelerate's wrapper, which knows the weights alone: theta's gradients are averaged here.
        with self.adaptation.architecture_pass(self.network, update_bn=update_bn):
            loss = backward_in_parts(
                self.objective, self.network, views, self.recipe.train.accumulate, self.accelerator
            )
        gradients = [p.grad for p in self.adaptation.theta_parameters() if p.grad is not None]
        average(gradients)
        is_finite = self._is_finite(loss, get_total_norm(gradients))
        if is_finite:
            self.theta_optimizer.step()
            if update_bn:
                self._average_statistics()
        else:
            restore(statistics)
        self.theta_optimizer.zero_grad()
        return loss if is_finite else None

    def check_theta(self) -> None:
        """Compare theta over all processes.

        Raises:
            RuntimeError: if it differs anywhere.
        """
        if self.adaptation is not None:
            check_same_everywhere(torch.stack([*self.adaptation.theta_parameters()]), "theta")

    def set_drop_path(self, progress: float) -> None:
        """Drop paths with a probability that rises linearly; `progress` is 0 at the run's start, 1 at its end."""
        if self.recipe.train.drop_path is not None:
            for module in self.network.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = self.recipe.train.drop_path * progress

    def fix(self) -> Architecture:
        """Discretise the architecture; the weights that are left train on with their optimiser's state.

        Raises:
            RuntimeError: if theta differs between the processes.
        """
        self.check_theta()
        assert self.adaptation is not None
        assert self.recipe.adapt is not None
        architecture = self.adaptation.fix(self.recipe.adapt.scale)
        self.adaptation = self.theta_optimizer = None
        keep_only(self.weight_optimizer, self.network.parameters())
        if process_count() > 1:  # the wrapper waits for the gradients of weights that are gone
            self.prepared = self.network
            self.accelerator.free_memory()
            self.prepared, self.weight_optimizer = prepare(
                self.accelerator, self.network, self.weight_optimizer, self.recipe.data.image_px
            )
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

    def _average_statistics(self) -> None:
        """The mean over the processes takes the place of BatchNorm's running statistics, where each has its own."""
        if not self.recipe.train.sync_batchnorm:
            average([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])

    def _is_finite(self, loss: float, norm: Tensor) -> bool:
        """Whether both are finite in all processes, so that all do the same."""
        return not any_process(not (math.isfinite(loss) and bool(norm.isfinite())))


def create_learner(
    recipe: Recipe, objective: Objective, accelerator: Accelerator, architecture: Mapping[str, Any] | None = None
) -> Learner:
    """A fresh learner; `architecture` is that of a run that goes on after its fix.

    Raises:
        ValueError: if timm does not know the model, or it cannot be adapted.
    """
    network: Any = objective.network.to(accelerator.device)
    bfloat16 = accelerator.mixed_precision == "bf16"  # the format is the plain network's, so that a resume finds it too
    memory_format = choose_memory_format(network, accelerator.device, bfloat16=bfloat16)
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
    weight_optimizer = create_weight_optimizer(trainable(network), recipe.train, accelerator.device)
    prepared, weight_optimizer = prepare(accelerator, network, weight_optimizer, recipe.data.image_px)
    return Learner(
        objective, prepared, weight_optimizer, adaptation, theta_optimizer, accelerator, recipe, memory_format
    )


def prepare(
    accelerator: Accelerator, network: nn.Module, optimizer: Optimizer, image_px: int
) -> tuple[nn.Module, Optimizer]:
    """The network as accelerate wraps it for its processes, and the optimiser likewise.

    The wrapper waits for the gradient of every weight, unless it is told that some get none.
    """
    if accelerator.ddp_handler is not None and process_count() > 1:
        accelerator.ddp_handler.find_unused_parameters = has_unread_weights(network, image_px)
    with warnings.catch_warnings():  # the option's new name is not yet among those that accelerate passes on
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        prepared: tuple[nn.Module, Optimizer] = accelerator.prepare(network, optimizer)
        return prepared


def has_unread_weights(network: nn.Module, image_px: int) -> bool:
    """Whether weights get no gradient, as before edges that are none: found by a pass that leaves nothing behind."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    state = random_state()
    try:
        with statistics_at_rest(network):
            outputs = network(weights[0].new_zeros(2, 3, image_px, image_px))
    except (AssertionError, RuntimeError):  # images that it can't take: the plan of the run says so, in words
        return False
    finally:
        set_random_state(state)
    total = outputs.sum() if isinstance(outputs, Tensor) else sum(output.sum() for output in outputs)
    return any(gradient is None for gradient in torch.autograd.grad(total, weights, allow_unused=True))


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The weights that gradients move; a teacher's are not among them."""
    return [weight for weight in network.parameters() if weight.requires_grad]


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


def restore(copies: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give each tensor the values of its copy again."""
    for tensor, copy in copies:
        tensor.copy_(copy)


def keep_only(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Make the optimiser forget, with their state, all parameters but these."""
    kept = set(parameters)
    for group in optimizer.param_groups:
        for parameter in set(group["params"]) - kept:
            optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if parameter in kept]
