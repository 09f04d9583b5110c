"""Growing: residual branches that open without any effect, and how much each would help at once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import replace_module
from ssl_adapt.adaptation.passes import theta_alone
from ssl_adapt.adaptation.removal import Change, Score, cuda_devices
from ssl_adapt.errors import UserError
from ssl_adapt.processes import average


@dataclass(frozen=True)
class Branch:
    """A branch that a network may grow.

    Attributes:
        operation: the module that opens it: fresh, its last layer zero.
        last: path of that layer within it.
    """

    operation: nn.Module
    last: str

    def last_weights(self) -> list[nn.Parameter]:
        """The weights that are zero; the only ones with a gradient as long as they are."""
        return [*self.operation.get_submodule(self.last).parameters(recurse=False)]


@torch.no_grad()
def last_layers(model: nn.Module, changes: Sequence[Change], images: Tensor) -> dict[Change, str]:
    """The last layer of what each change takes away: its path within the edge.

    With that layer zero the edge gives exactly what it gives with the change made. Changes without such a layer are
    left out: where a convolution became the identity, it can't come back without any effect.

    Args:
        model: plain; it is left as it was.
        changes: of one edge each, to none or the identity.
        images: (B, C, H, W), two or more.
    """
    given = _inputs(model, [change.edges[0] for change in changes], images)
    found: dict[Change, str] = {}
    for change in changes:
        name = change.edges[0]
        if name not in given:
            continue
        args, keywords = given[name]
        wanted = torch.zeros_like(args[0]) if change.choice == "none" else args[0]
        operation = deepcopy(model.get_submodule(name)).eval()
        with_weights = [path for path, part in operation.named_modules() if [*part.parameters(recurse=False)]]
        for path in reversed(with_weights):
            zeroed = deepcopy(operation)
            zero(zeroed.get_submodule(path))
            output = zeroed(*args, **keywords)
            if isinstance(output, Tensor) and output.shape == wanted.shape and bool((output == wanted).all()):
                found[change] = path
                break
    return found


@torch.no_grad()
def zero(layer: nn.Module) -> None:
    """Make a layer's own weights zero."""
    for weight in layer.parameters(recurse=False):
        weight.zero_()


@contextmanager
def opened(model: nn.Module, branches: Mapping[str, Branch]) -> Iterator[None]:
    """A context in which these branches, by the names of their edges, are part of the network."""
    before = {name: model.get_submodule(name) for name in branches}
    try:
        for name, branch in branches.items():
            replace_module(model, name, branch.operation.train(before[name].training))
        yield
    finally:
        for name, module in before.items():
            replace_module(model, name, module)


def growth_scores(
    model: nn.Module,
    branches: Mapping[str, Branch],
    backward: Callable[[Sequence[Tensor]], object],
    batches: Sequence[Sequence[Tensor]],
    *,
    network: nn.Module | None = None,
) -> list[Score]:
    """How fast the loss would fall by each branch's opening: the squared norm of its last layer's gradient.

    The gradient is that of the mean loss of all batches, with the branch really there. All branches are there together:
    as none has any effect, each has the gradient that it would have alone. Nothing is left behind.

    Args:
        model: the network without the branches.
        branches: by the names of their edges.
        backward: gives the weights the gradients of a batch's loss, such as `lambda batch: loss(batch).backward()`.
        batches: what `backward` takes.
        network: what holds `model` and all else on the way to the loss; None if that is `model` alone.

    Raises:
        ValueError: if there are no batches.

    Distributed: every process calls it with the same branches and its own share of each batch; gradients are averaged.

    Source: GradMax (Evci et al. 2022), where new neurons are chosen by it; the choice among branches is ours.
    """
    if not batches:
        raise UserError("batches is empty: a branch is measured on one batch at least")
    weights = {name: branch.last_weights() for name, branch in branches.items()}
    everything = [weight for last in weights.values() for weight in last]
    whole = network or model
    with opened(model, branches), torch.random.fork_rng(devices=cuda_devices(model)):
        first_seed = torch.random.initial_seed() % 2**63
        with theta_alone(everything, [whole], update_bn=False):
            for number, batch in enumerate(batches):
                torch.manual_seed(first_seed + number)
                backward(batch)
    gradients = {weight: weight.grad for weight in everything if weight.grad is not None}
    average([*gradients.values()])
    scores = []
    for name, last in weights.items():
        squares = [(gradients[weight].double() / len(batches)).square().sum() for weight in last if weight in gradients]
        scores.append(Score(Change((name,), "original"), float(sum(squares)), math.nan, len(batches)))
    for weight in everything:
        weight.grad = None
    return scores


def _inputs(
    model: nn.Module, names: Sequence[str], images: Tensor
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each of these modules was given in a forward pass in eval mode, tensors first."""
    given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if args and isinstance(args[0], Tensor):
                given[name] = args, keywords

        return record

    modes = {module: module.training for module in model.modules()}
    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n), with_kwargs=True) for n in names]
    model.eval()
    model(images)
    for handle in handles:
        handle.remove()
    for module, mode in modes.items():
        module.training = mode
    return given
