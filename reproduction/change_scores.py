"""First-order scores of changes: from theta's gradient, and from the weights' own."""

from collections.abc import Sequence
from copy import copy, deepcopy

import torch
from torch import Tensor, nn

from reproduction.weight_training import Views
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import edge_specs
from ssl_adapt.adaptation.removal import Change, make_change
from ssl_adapt.adaptation.taylor import taylor_scores
from ssl_adapt.objectives import Objective


def loss_of(objective: Objective, views: Views) -> Tensor:
    """The loss of one batch, a scalar."""
    return objective.loss(objective.forward(objective.network, views))


def with_change(objective: Objective, change: Change | None) -> Objective:
    """The same objective on a copy of its network, with the change made."""
    other = copy(objective)
    other.network = deepcopy(objective.network)
    if change:
        specs = {spec.name: spec for spec in edge_specs(other.network.backbone)}
        make_change(other.network.backbone, specs, change)
    return other


def theta_scores(objective: Objective, changes: Sequence[Change], batches: Sequence[Views]) -> list[float]:
    """What theta's gradient predicts of each change, to first order: dL/dtheta of its choice less dL/dtheta_same."""
    other = with_change(objective, None)
    names = [name for change in changes for name in change.edges]
    adaptation = Adaptation(other.network.backbone, only=names)
    for views in batches:
        with adaptation.architecture_pass(other.network):
            (loss_of(other, views) / len(batches)).backward()
    place = {"none": 0, "identity": 1}
    slopes = {name: theta.grad.tolist() for name, theta in adaptation.theta.items() if theta.grad is not None}
    return [sum(slopes[n][place[change.choice]] - slopes[n][2] for n in change.edges) for change in changes]


def weight_scores(objective: Objective, changes: Sequence[Change], batches: Sequence[Views]) -> dict[str, list[float]]:
    """Scores from the weights w of what goes and their gradients g, each of one batch.

    "signed Taylor": the mean of -sum(w g), the loss's first-order change if all w become 0. "squared Taylor": that of
    `taylor_scores`. "magnitude": the L2 norm of w.
    """
    network = objective.network
    weights = [[w for n in change.edges for w in network.backbone.get_submodule(n).parameters()] for change in changes]
    signed = torch.zeros(len(changes))

    def backward(views: Views) -> None:
        loss_of(objective, views).backward()
        signed.sub_(torch.stack([sum_of_products(ws) for ws in weights]) / len(batches))

    squared = taylor_scores(network.backbone, changes, backward, batches, network=network)
    norms = [float(nn.utils.parameters_to_vector(ws).detach().norm()) for ws in weights]
    return {"squared Taylor": [s.value for s in squared], "signed Taylor": signed.tolist(), "magnitude": norms}


def sum_of_products(weights: Sequence[nn.Parameter]) -> Tensor:
    """Sum(w g) over the weights."""
    return torch.stack([(w * w.grad).detach().sum() for w in weights if w.grad is not None]).sum()
