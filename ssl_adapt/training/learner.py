"""The learner: a network, what adapts it, the optimisers of both, and one step of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from accelerate import Accelerator
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, edge_specs
from ssl_adapt.adaptation.edge import Adaptable, Choice
from ssl_adapt.adaptation.growth import Branch
from ssl_adapt.adaptation.removal import Change, make_change
from ssl_adapt.data import Batch
from ssl_adapt.objectives.base import Objective
from ssl_adapt.processes import average, check_same_everywhere, process_count, sum_all, whole_tensors
from ssl_adapt.recipe import AdaptSection, TrainSection
from ssl_adapt.training.accumulation import backward_in_parts
from ssl_adapt.training.batch_norm import restore
from ssl_adapt.training.compilation import compile_network
from ssl_adapt.training.create_adaptation import create_adaptation
from ssl_adapt.training.online_probe import OnlineProbe
from ssl_adapt.training.optimizers import at_rest, keep_only, set_lr
from ssl_adapt.training.setting import prepare
from ssl_adapt.training.weight_average import WeightAverage


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
        plain_cost: what the plain network costs, in the unit of the budget; None without a budget.
        choices: what `change` was given, until the fix.
        branches: that a growing network has not yet, by edge.
        layer_rates: what `create_weight_optimizer` is given.
        average: of the weights; None without one.
        must_stop: whether any process had been told so when the last pass ended; the same in all of them.
        skeleton: the network before its weights were spread over the processes; None while each has all of them.
        online_probe: learns on the features; None without one.
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
    plain_cost: float | None = None
    choices: Mapping[str, Choice] | None = None
    branches: dict[str, Branch] = field(default_factory=dict)
    layer_rates: Mapping[str, float] = field(default_factory=dict)
    average: WeightAverage | None = None
    skeleton: nn.Module | None = None
    must_stop: bool = False
    online_probe: OnlineProbe | None = None
    gradient_norm: float = math.nan

    @property
    def network(self) -> Any:
        """The objective's network, as it is."""
        return self.objective.network

    @property
    def evaluated(self) -> Any:
        """What is evaluated and exported, with its `backbone` and `heads`: the average of the network, or itself."""
        return self.average or self.network

    @property
    def architecture(self) -> Architecture | None:
        """The backbone's as far as it is fixed; None for one that has no edges."""
        backbone = self.network.backbone
        if not isinstance(backbone, Adaptable):
            return None
        return self.adaptation.before if self.adaptation else Architecture.of(cast(nn.Module, backbone))

    @property
    def followers(self) -> tuple[nn.Module, ...]:
        """The backbones that adapt as the network's does."""
        return (*self.network.teacher_backbones, *([self.average.backbone] if self.average else []))

    def views(self, batch: Batch) -> list[Tensor]:
        """What the objective makes of a batch, images in the network's memory format."""
        return [
            tensor.contiguous(memory_format=self.memory_format) if tensor.ndim == 4 else tensor
            for tensor in self.objective.views(batch)
        ]

    def train_weights(
        self, views: Sequence[Tensor], lr: float, progress: float, *, joint: bool = False, frozen: bool = False
    ) -> float | None:
        """One step of the weights, theta fixed; the loss of the whole batch.

        None if that or the gradient is not finite: everything is then as it was before.

        Args:
            views: what `views` gave.
            lr: learning rate.
            progress: the share of the run's steps that are done after this one.
            joint: theta makes its step too, with gradients of the same pass.
            frozen: the backbone's weights rest, its classifier's aside.
        """
        set_lr(self.weight_optimizer, lr)
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        rest = at_rest(self.network.backbone) if frozen else nullcontext()
        with self.adaptation.joint_pass() if joint and self.adaptation else nullcontext(), rest:
            # a wrapper would wait for the gradients of weights that rest
            loss = self.backward(self.network if frozen else self.prepared, views)
        theta_gradients = self._average_theta_gradients() if joint else []
        if frozen:
            average([p.grad for p in self.network.parameters() if p.grad is not None])
        if self.train.clip_grad_norm is not None:
            norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.train.clip_grad_norm)
        else:
            norm = get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        mean_loss, self.gradient_norm = self._agree(loss, whole_tensors(norm), *theta_gradients)
        if mean_loss is not None:
            self.weight_optimizer.step()
            if joint and self.theta_optimizer:
                self.theta_optimizer.step()
            self._average_statistics()
            self.objective.after_step(progress)
            if self.average is not None:
                self.average.update()
        else:
            restore(statistics)
        self.weight_optimizer.zero_grad()
        if joint and self.theta_optimizer:
            self.theta_optimizer.zero_grad()
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
        with self.adaptation.architecture_pass(self.network, update_bn=update_bn):
            loss = self.backward(self.network, views)
        mean_loss, _ = self._agree(loss, get_total_norm(self._average_theta_gradients()))
        if mean_loss is not None:
            self.theta_optimizer.step()
            if update_bn:
                self._average_statistics()
        else:
            restore(statistics)
        self.theta_optimizer.zero_grad()
        return mean_loss

    def change(self, choices: Mapping[str, Choice]) -> None:
        """Begin to change these edges as given: annealing moves them there, and `fix` makes it so."""
        assert self.adapt is not None
        backbone, followers = self.network.backbone, self.followers
        if self.adaptation is not None:
            self.adaptation.choose(choices)
        else:
            skips = tuple(name for name, choice in choices.items() if choice == "original")
            for network in (backbone, *followers):  # what has no weights is taken away at once
                make_change(network, {spec.name: spec for spec in edge_specs(network)}, Change(skips, "original"))
            choices = {name: choice for name, choice in choices.items() if name not in skips}
            if choices:
                self.adaptation = create_adaptation(backbone, self.adapt, followers, choices)
        self.choices = choices or None
        if self.train.compile:
            compile_network(self.network)

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
        """Discretise what is mixed; the weights that are left train on with their optimiser's state.

        Raises:
            RuntimeError: if theta differs between the processes.
        """
        if self.adaptation is None:
            return Architecture.of(self.network.backbone)
        self.check_theta()
        assert self.adapt is not None
        architecture = self.adaptation.fix(self.adapt.scale)
        self.adaptation = self.theta_optimizer = self.choices = None
        keep_only(self.weight_optimizer, self.network.parameters())
        if process_count() > 1:  # the wrapper waits for the gradients of weights that are gone
            self.prepared = self.network
            self.accelerator.free_memory()
            self.prepared, self.weight_optimizer = prepare(
                self.accelerator, self.network, self.weight_optimizer, self.image_px
            )
        if self.train.compile:
            compile_network(self.network)
        return architecture

    def state_dict(self) -> dict[str, Any]:
        """Weights, theta, both optimisers, the probe, the architecture as far as it is fixed, and what is changing."""
        return {
            "architecture": self.architecture and self.architecture.to_dict(),
            "choices": self.choices,
            "plain_cost": self.plain_cost,
            "network": whole_tensors(self.network.state_dict()),
            "average": None if self.average is None else self.average.state_dict(),
            "weight_optimizer": whole_tensors(self.weight_optimizer.state_dict()),
            "adaptation": None if self.adaptation is None else self.adaptation.state_dict(),
            "online_probe": None if self.online_probe is None else self.online_probe.state_dict(),
            "theta_optimizer": None if self.theta_optimizer is None else self.theta_optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; the learner must have been created with it."""
        self.network.load_state_dict(state["network"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.adaptation is not None:
            self.adaptation.load_state_dict(state["adaptation"])
        if self.theta_optimizer is not None:
            self.theta_optimizer.load_state_dict(state["theta_optimizer"])
        if self.online_probe is not None and state.get("online_probe"):  # it may be asked for when a run goes on
            self.online_probe.load_state_dict(state["online_probe"])

    def train_probe(self, batch: Batch, views: Sequence[Tensor]) -> None:
        """One step of the online probe, if there is one, on the first view; what is evaluated stays as it is."""
        if self.online_probe is not None and batch.labels is not None:
            with self.accelerator.autocast():
                self.online_probe.train(self.evaluated.backbone, views[0], batch.labels)

    def backward(self, network: nn.Module, views: Sequence[Tensor]) -> Tensor:
        """The loss, whose gradients are then there."""
        return backward_in_parts(
            self.objective, network, views, self.train.accumulate, self.accelerator,
            recomputes=self.train.checkpoint_activations,
        )  # fmt: skip

    def _average_theta_gradients(self) -> list[Tensor]:
        """Theta's gradients, averaged over the processes: accelerate's wrapper knows the weights alone."""
        assert self.adaptation is not None
        gradients = [p.grad for p in self.adaptation.theta_parameters() if p.grad is not None]
        average(gradients)
        return gradients

    def _average_statistics(self) -> None:
        """The mean over the processes takes the place of BatchNorm's running statistics, where each has its own."""
        if not self.train.sync_batchnorm:
            average([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])

    def _agree(self, loss: Tensor, gradient_norm: Tensor, *others: Tensor) -> tuple[float | None, float]:
        """The mean loss, None if anything given is not finite in any process, and the mean norm; sets `must_stop`.

        All processes learn the same here, and do the same. It is the only place where a pass waits for the device: one
        reduction, one transfer. It can't wait for the next line of the log, as optimisers count steps on the host: an
        update that must not happen is not begun.
        """
        is_broken = ~torch.stack([number.to(loss).isfinite().all() for number in (loss, gradient_norm, *others)]).all()
        stop_came = loss.new_full((), self.stop_came())
        mine = torch.stack([loss, *(number.to(loss) for number in (gradient_norm, is_broken, stop_came))])
        mean_loss, mean_norm, broken, stopped = sum_all(mine / process_count()).tolist()
        self.must_stop = stopped > 0
        return (None if broken > 0 else mean_loss), mean_norm
