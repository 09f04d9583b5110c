"""The optimisers of the weights, which are timm's, and of theta."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Adam, Optimizer

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import AdaptSection, TrainSection


def create_weight_optimizer(
    network: nn.Module, train: TrainSection, device: torch.device, layer_rates: Mapping[str, float] | None = None
) -> Optimizer:
    """The optimiser of the network's weights; fused kernels on a GPU for those that are torch's (not run on a GPU).

    Args:
        network: an objective's, adapting or not.
        train: its optimizer, lr, momentum, weight_decay and exclude_norm_and_bias.
        device: where the weights are.
        layer_rates: what `layer_rates` gave for the plain backbone; None: all layers learn at the same rate.
    """
    options: dict[str, Any] = {"lr": train.lr}
    if train.optimizer in ("adam", "adamw", "sgd"):
        options["fused"] = device.type == "cuda"
    if train.optimizer == "sgd":
        options["nesterov"] = False  # timm's own default is true
    if train.optimizer == "lamb":
        options["max_grad_norm"] = None  # timm's own default is 1; here train.clip_grad_norm says whether to clip
    if train.momentum is not None:
        options["momentum"] = train.momentum
    groups = weight_groups(network, train, layer_rates or {})
    optimizer: Optimizer = create_optimizer_v2(groups, train.optimizer, **options)
    return optimizer


def layer_rates(backbone: Any, layer_decay: float | None) -> dict[str, float]:
    """The share of the learning rate that each weight of a plain backbone has, by its path; empty without a decay.

    A module on the way to a weight has that of its first weight: what an edge becomes stays in the edge's layer.

    Raises:
        ValueError: the backbone does not say what its layers are.
    """
    if layer_decay is None:
        return {}
    if not hasattr(backbone, "group_matcher"):
        raise UserError(
            f"train.layer_decay={layer_decay}: {type(backbone).__name__} does not say what its layers are, as timm's "
            "models do by group_matcher(); set it to null"
        )
    layers: dict[str, int] = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    rates = {"": 1.0}
    for path, layer in layers.items():
        while path:
            rates.setdefault(path, layer_decay ** (max(layers.values()) - layer))
            path = path.rpartition(".")[0]
    return rates


def weight_groups(network: Any, train: TrainSection, layer_rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """The weights that gradients move, a teacher's aside, in groups of one weight decay and one `lr_scale` each.

    By hand, as timm's groups would be other ones, or come in another order, once a fix has taken weights away, and a
    run that goes on restores its optimiser by their order.
    """
    listed = network.backbone.no_weight_decay() if hasattr(network.backbone, "no_weight_decay") else ()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        scale, inner = 1.0, name.removeprefix("backbone.")
        if layer_rates and inner != name:
            path = inner
            while path not in layer_rates:
                path = path.rpartition(".")[0]
            scale = layer_rates[path]
        is_excluded = train.exclude_norm_and_bias and (weight.ndim <= 1 or inner in listed)
        groups.setdefault((scale, 0.0 if is_excluded else train.weight_decay), []).append(weight)
    return [
        {"params": groups[scale, decay], "lr_scale": scale, "weight_decay": decay} for scale, decay in sorted(groups)
    ]


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every group of weights its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


@contextmanager
def at_rest(backbone: Any) -> Iterator[None]:
    """A context in which a backward pass gives no gradients to the weights of a backbone, but for its classifier's.

    Weights without a gradient are left out by every optimiser, decay and momentum included.
    """
    classifier = backbone.get_classifier()
    heads = classifier if isinstance(classifier, tuple) else (classifier,)  # of a distilled vit there are two
    kept = {weight for head in heads for weight in head.parameters()}
    resting = [weight for weight in backbone.parameters() if weight.requires_grad and weight not in kept]
    for weight in resting:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in resting:
            weight.requires_grad_(True)


def keep_only(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Make the optimiser forget, with their state, all parameters but these, and groups that have none left."""
    kept = set(parameters)
    for group in optimizer.param_groups:
        for parameter in set(group["params"]) - kept:
            optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if parameter in kept]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def create_theta_optimizer(parameters: Iterable[nn.Parameter], adapt: AdaptSection) -> Optimizer:
    """Adam on theta; theta_none never moves, as its gradient is 0 and nothing decays it by default."""
    return Adam(parameters, adapt.theta_lr, betas=adapt.theta_betas, weight_decay=adapt.theta_weight_decay)
