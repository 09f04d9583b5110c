"""How long the networks of Table 5 take for a batch, measured on this machine."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import timm
import torch
from torch import nn

from reproduction.shrink_networks import NETWORKS, REMOVED, declare_branches
from ssl_adapt.adaptation.architecture import edge_specs
from ssl_adapt.adaptation.budget import measure_cost
from ssl_adapt.adaptation.removal import Change, make_change

Cut = tuple[str, ...]  # the edges that went


def create_cut_network(network: str, cut: Sequence[str]) -> nn.Module:
    """The network of that name with random weights and without the edges of `cut`."""
    model = deepcopy(_create_whole_network(network))
    specs = {spec.name: spec for spec in edge_specs(model)}
    for name in cut:
        make_change(model, specs, Change((name,), REMOVED[network]))
    return model.eval()


@cache
def _create_whole_network(network: str) -> nn.Module:
    """Created once: to find a network's branches takes longer than to time it."""
    values = NETWORKS[network]
    model: nn.Module = timm.create_model(values["model.name"], num_classes=10, **values["model.args"])
    declare_branches(network, model, values["model.args"])
    return model


def batch_seconds(
    network: str, cuts: Iterable[Sequence[str]], *, images: int = 96, rounds: int = 3
) -> Mapping[Cut, float]:
    """For each cut the seconds of a forward pass in eval mode: the least of all rounds, which take cuts by turns."""
    image_px = NETWORKS[network].get("data.image_px", 16)
    batch = torch.zeros(images, 3, image_px, image_px)
    models = {tuple(cut): create_cut_network(network, cut) for cut in cuts}
    times = [{cut: measure_cost(model, batch, "seconds") for cut, model in models.items()} for _ in range(rounds)]
    return {cut: min(found[cut] for found in times) for cut in models}


def time_shares(rows: Sequence[Mapping[str, Any]], **sizes: int) -> list[float]:
    """For each row the time of its network over that of the whole one."""
    seconds = batch_seconds(rows[0]["network"], [(), *(row["cut"] for row in rows)], **sizes)
    return [seconds[tuple(row["cut"])] / seconds[()] for row in rows]
