"""Comparisons of one training step: plain, of the architecture stage, and with naive alternation."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.naive import mix_naively
from benchmarks.timing import Comparison
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.data import Batch, load_image_splits
from ssl_adapt.recipe import load_recipe
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import create_accelerator

CLASSES = 10

Loss = Callable[[nn.Module], Tensor]


def compare_supervised_steps(
    batch_size: int,
    *,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
    width: int = 16,
    image_px: int = 32,
) -> Comparison:
    """A plain step of ResNet20 against the step of the architecture stage, its halves, and naive alternation."""
    images = torch.randn(batch_size, 3, image_px, image_px).to(device, memory_format=memory_format)
    labels = torch.randint(CLASSES, (batch_size,)).to(device)

    def loss(network: nn.Module) -> Tensor:
        return F.cross_entropy(network(images), labels)

    plain = timm.create_model("resnet20", width=width, num_classes=CLASSES)
    plain.to(memory_format=memory_format).to(device)
    mixed, joint, naive = deepcopy(plain), deepcopy(plain), deepcopy(plain)
    train_weights, train_theta = create_alternation(mixed, loss)

    def train_both() -> None:
        train_weights()
        train_theta()

    layout = "channels_last" if memory_format == torch.channels_last else "NCHW"
    return Comparison(
        name=f"step: ResNet20, {image_px} px, batch {batch_size}, {layout}",
        shows="what the architecture stage costs: 1.67x a plain step by FLOPs, the target is 1.80x",
        contenders={
            "plain step": create_step(plain, loss, _weight_optimizer(plain)),
            "architecture stage": train_both,
            "weights' half of it": train_weights,
            "theta half of it": train_theta,
            "joint pass": create_joint_step(joint, loss),
            "naive alternation": create_naive_alternation(naive, loss),
        },
        unit="images",
        units_per_call=batch_size,
        notes=("naive: eq. 1 term by term, the gradients of weights and theta in both passes",),
    )


def create_step(
    network: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    gradient_pass: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[[], None]:
    """One step of an optimiser as a function; forward and backward run inside `gradient_pass`."""

    def step() -> None:
        optimizer.zero_grad()
        with gradient_pass():
            loss(network).backward()
        optimizer.step()

    return step


def create_alternation(network: nn.Module, loss: Loss) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two halves of a step of the architecture stage, as the training loop has them: weights, then theta.

    The network's edges become mixed, in place.
    """
    adaptation = Adaptation(network)
    theta_optimizer = _theta_optimizer(adaptation.theta_parameters())
    train_weights = create_step(network, loss, _weight_optimizer(network))
    return train_weights, create_step(network, loss, theta_optimizer, adaptation.architecture_pass)


def create_joint_step(network: nn.Module, loss: Loss) -> Callable[[], None]:
    """A step of weights and theta from one backward pass; the network's edges become mixed, in place."""
    adaptation = Adaptation(network)
    optimizers = _weight_optimizer(network), _theta_optimizer(adaptation.theta_parameters())

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        with adaptation.joint_pass():
            loss(network).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def create_naive_alternation(network: nn.Module, loss: Loss) -> Callable[[], None]:
    """Both halves as one function, each computing all gradients; the network's edges change in place."""
    weight_optimizer = _weight_optimizer(network)
    theta_optimizer = _theta_optimizer(mix_naively(network).values())

    def step() -> None:
        for optimizer in (weight_optimizer, theta_optimizer):
            weight_optimizer.zero_grad()
            theta_optimizer.zero_grad()
            loss(network).backward()
            optimizer.step()

    return step


def compare_simclr_steps(batch_size: int, *, overrides: Sequence[str] = ()) -> Comparison:
    """A whole SimCLR step of recipe simclr_resnet20 with the architecture fixed, and in its stage.

    Args:
        batch_size: images, each seen in two views.
        overrides: further key=value for the recipe.
    """
    arguments = ["recipe=simclr_resnet20", f"data.batch_size={batch_size}", *overrides]
    recipe = load_recipe(arguments)
    accelerator = create_accelerator(recipe)
    unseen = load_image_splits("digits", image_px=8).train  # an objective asks them for their labels alone
    recipes = (load_recipe([*arguments, "adapt=null"]), recipe)
    plain, adaptive = (create_learner(r, create_objective(r, unseen), accelerator) for r in recipes)
    image_px, lr = recipe.data.image_px, recipe.train.lr
    images = torch.randint(256, (batch_size, 3, image_px, image_px), dtype=torch.uint8).to(accelerator.device)
    batch = Batch(images, None, torch.arange(batch_size))

    def train_plain() -> None:
        plain.train_weights(plain.views(batch), lr, 0.0)

    def train_both() -> None:
        views = adaptive.views(batch)
        adaptive.train_weights(views, lr, 0.0)
        adaptive.train_theta(views)

    return Comparison(
        name=f"step: SimCLR, ResNet20, {image_px} px, batch {batch_size}",
        shows="what the architecture stage costs in pre-training, the making of the views included",
        contenders={"plain step": train_plain, "architecture stage": train_both},
        unit="images",
        units_per_call=batch_size,
    )


def _weight_optimizer(network: nn.Module) -> Optimizer:
    return SGD(network.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)


def _theta_optimizer(thetas: Iterable[nn.Parameter]) -> Optimizer:
    return Adam(thetas, lr=3e-4, betas=(0.5, 0.999))
