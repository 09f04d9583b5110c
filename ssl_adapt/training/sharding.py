"""Weights spread over the processes once the architecture is fixed: each keeps a part of them."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ssl_adapt.processes import process_count, whole_tensors
from ssl_adapt.training.learner import Learner


def shard_weights(learner: Learner) -> None:
    """Spread weights, gradients and the optimiser's state over the processes, if `train.shard_weights` says so.

    The network stays the same object, and computes the same. Its weights are whole from a step's first forward pass to
    the end of its backward pass. Nothing happens with one process, or the second time.

    Distributed: all processes call it, with the same weights, when no edge is mixed any more.

    Source: torch's FSDP2, `fully_shard`, of the whole network as one group.
    """
    if not learner.train.shard_weights or process_count() == 1 or learner.skeleton is not None:
        return
    assert learner.adaptation is None
    network, optimizer = learner.network, learner.weight_optimizer
    learner.skeleton = deepcopy(network).to("cpu")
    before = dict(network.named_parameters())
    learner.prepared = network  # without the wrapper, which waits for the gradients of whole weights
    learner.accelerator.free_memory()
    fully_shard(network)
    after = {before[name]: weight for name, weight in network.named_parameters()}
    for group in optimizer.param_groups:
        group["params"] = [after[weight] for weight in group["params"]]
    for weight in list(optimizer.state):
        state = optimizer.state.pop(weight)
        optimizer.state[after[weight]] = {name: _like(after[weight], value) for name, value in state.items()}


def plain_network(learner: Learner) -> Any:
    """The objective's network; of one whose weights are spread, a copy that has all of them, to measure and export.

    Distributed: all processes call it.
    """
    if learner.skeleton is None:
        return learner.network
    network = deepcopy(learner.skeleton)
    network.load_state_dict(whole_tensors(learner.network.state_dict()))
    return network.to(learner.accelerator.device)


def _like(weight: nn.Parameter, value: Any) -> Any:
    """A tensor of the optimiser spread as its weight is; numbers of steps stay as they are."""
    if isinstance(value, Tensor) and isinstance(weight, DTensor) and value.shape == weight.shape:
        return distribute_tensor(value, weight.device_mesh, weight.placements)
    return value
