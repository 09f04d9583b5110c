"""A fresh learner from a recipe, or that of a run that goes on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ssl_adapt.adaptation.architecture import Architecture, apply_architecture, edge_specs
from ssl_adapt.adaptation.budget import measure_cost
from ssl_adapt.adaptation.edge import Choice
from ssl_adapt.adaptation.growth import Branch
from ssl_adapt.backbones.memory_format import choose_memory_format
from ssl_adapt.errors import UserError
from ssl_adapt.objectives.base import Objective
from ssl_adapt.processes import process_count
from ssl_adapt.recipe import Recipe, TrainSection
from ssl_adapt.training.batch_norm import synchronise_batch_norm
from ssl_adapt.training.choice import cost_images
from ssl_adapt.training.compilation import check_compiler, compile_network
from ssl_adapt.training.create_adaptation import create_adaptation
from ssl_adapt.training.grow import set_aside
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.optimizers import create_theta_optimizer, create_weight_optimizer, layer_rates
from ssl_adapt.training.recomputation import recompute_activations
from ssl_adapt.training.setting import prepare
from ssl_adapt.training.weight_average import WeightAverage


def create_learner(
    recipe: Recipe,
    objective: Objective,
    accelerator: Accelerator,
    saved: Mapping[str, Any] | None = None,
    stop_came: Callable[[], bool] = lambda: False,
) -> Learner:
    """A fresh learner.

    Args:
        recipe: its sections train and adapt, and the size of its images.
        objective: what the network is trained for.
        accelerator: device, processes and mixed precision.
        saved: the `state_dict` of a learner that goes on, of which the architecture is taken.
        stop_came: whether this process was told to end the run.

    Raises:
        ValueError: if timm does not know the model, it cannot be adapted, or its weights cannot be sharded.
    """
    network: Any = objective.network.to(accelerator.device)
    check_means(recipe.train, network, accelerator.device)
    bfloat16 = accelerator.mixed_precision == "bf16"  # the format is the plain network's, so that a resume finds it too
    memory_format = choose_memory_format(network, accelerator.device, bfloat16=bfloat16)
    rates = layer_rates(network.backbone, recipe.train.layer_decay)
    average = None if recipe.train.ema_decay is None else WeightAverage(network, recipe.train.ema_decay)
    followers = (*network.teacher_backbones, *([average.backbone] if average else []))
    if recipe.train.checkpoint_activations:
        recompute_activations(network.backbone, recipe.model.name)
    adaptation = theta_optimizer = choices = None
    plain_cost = saved["plain_cost"] if saved else None
    if plain_cost is None and recipe.adapt is not None and recipe.adapt.budget is not None:
        plain_cost = measure_cost(
            network.backbone, cost_images(recipe.data, accelerator.device), recipe.adapt.budget[0]
        )
    is_growing = recipe.adapt is not None and recipe.adapt.start_share is not None
    if saved is not None and saved["architecture"] is not None and not is_growing:
        for backbone in (network.backbone, *followers):
            apply_architecture(backbone, Architecture.from_dict(saved["architecture"]))
    elif recipe.adapt is not None and recipe.adapt.score != "theta" and recipe.adapt.none_start:
        for backbone in (network.backbone, *followers):
            add_skips(backbone)
    if recipe.adapt is not None and (saved["adaptation"] is not None if saved else recipe.adapt.score == "theta"):
        choices = saved and saved["choices"]
        adaptation = create_adaptation(network.backbone, recipe.adapt, followers, choices)
        if recipe.adapt.score == "theta":
            theta_optimizer = create_theta_optimizer(adaptation.theta_parameters(), recipe.adapt)
    if process_count() > 1 and recipe.train.sync_batchnorm:
        synchronise_batch_norm(network, accelerator.device)
    network.to(memory_format=memory_format)
    branches: dict[str, Branch] = {}
    if is_growing and recipe.adapt is not None and plain_cost is not None:
        grown = Architecture.from_dict(saved["architecture"]) if saved else None
        branches = set_aside(network, followers, recipe.adapt, recipe.data, plain_cost, grown)
    if average is not None:
        average.set_memory_format(memory_format)
    weight_optimizer = create_weight_optimizer(network, recipe.train, accelerator.device, rates)
    prepared, weight_optimizer = prepare(accelerator, network, weight_optimizer, recipe.data.image_px)
    if recipe.train.compile:
        compile_network(network)
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
        plain_cost=plain_cost,
        choices=choices,
        branches=branches,
        layer_rates=rates,
        average=average,
    )


def check_means(train: TrainSection, network: Any, device: torch.device) -> None:
    """Check that what the recipe asks of torch works with this network, on this device.

    Raises:
        ValueError: if it does not.
    """
    if train.shard_weights and network.teacher_backbones:
        raise UserError(
            "train.shard_weights=true was not tried with an objective that has a teacher, as BYOL has: set it to false"
        )
    if train.compile:
        check_compiler(device)


def add_skips(backbone: nn.Module) -> None:
    """Put an identity wherever the plain network has none."""
    plain = Architecture.of(backbone)
    skips: dict[str, Choice] = {
        spec.name: "identity" for spec in edge_specs(backbone) if spec.kind == "none" and spec.allows("identity", "pad")
    }
    apply_architecture(backbone, replace(plain, edges={**plain.edges, **skips}))
