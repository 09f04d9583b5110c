"""The residual branches of any network, found by what happens when their weights are zero."""

import re
from copy import deepcopy
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.cost import count_parameters
from ssl_adapt.adaptation.edge import Choice, Zero

# Parts of a branch that are no branch of their own, by the names of their classes.
_PARTS = re.compile(r"Norm|Scale|Drop|Identity|ReLU|GELU|SiLU|Act", re.IGNORECASE)

Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # of one call


@torch.no_grad()
def find_branches(model: nn.Module, images: Tensor) -> dict[str, tuple[Choice, ...]]:
    """The removable branches of a network: paths in forward order, each with its candidates.

    A residual block is a module that gives back its input when all of its weights are zero. Where two submodules of
    it, such as attention and MLP, must both be zero for that, each is a branch of its own, with the candidate "none";
    else the block is, with the candidate "identity".

    Args:
        model: on the CPU or a GPU; it is left as it was.
        images: (B, C, H, W), a few.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        copy = deepcopy(model)
        copy.eval()  # not in one line: some networks' own eval() gives nothing back
        for parameter in copy.parameters():
            if not parameter.any():  # a branch that starts at zero must show itself
                nn.init.normal_(parameter, std=0.02)
        inputs = _recorded_inputs(copy, images)
        residual = [name for name, given in inputs.items() if _is_residual(copy.get_submodule(name), given)]
        innermost = [name for name in residual if not any(other.startswith(f"{name}.") for other in residual)]
        branches: dict[str, tuple[Choice, ...]] = {}
        for name in innermost:
            pair = _find_pair(copy.get_submodule(name), inputs[name])
            names = [f"{name}.{child}" for child in pair] or [name]
            branches |= dict.fromkeys(names, ("original", "none" if pair else "identity"))
    return branches


def _recorded_inputs(model: nn.Module, images: Tensor) -> dict[str, Inputs]:
    """What each module with weights was given in a forward pass in eval mode, by path, in the order of the calls.

    Only of modules that were called once, with a tensor first, and gave a tensor of its shape.
    """
    inputs: dict[str, Inputs] = {}
    calls: dict[str, int] = {}
    handles = []

    def record(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            x = args[0] if args else None
            if isinstance(x, Tensor) and isinstance(output, Tensor) and x.shape == output.shape:
                inputs[name] = (args, keywords)

        return hook

    for name, module in model.named_modules():
        if name and any(True for _ in module.parameters()):
            handles.append(module.register_forward_hook(record(name), with_kwargs=True))
    model(images)
    for handle in handles:
        handle.remove()
    return {name: given for name, given in inputs.items() if calls[name] == 1}


def _is_residual(module: nn.Module, given: Inputs) -> bool:
    args, keywords = given
    zeroed = deepcopy(module)
    for parameter in zeroed.parameters():
        parameter.zero_()
    return _gives_back(zeroed, args, keywords)


def _gives_back(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    try:
        output = module(*args, **keywords)
    except (RuntimeError, ValueError, TypeError):  # a copy that can't run alone is no block that we know
        return False
    return isinstance(output, Tensor) and output.shape == args[0].shape and torch.equal(output, args[0])


def _find_pair(block: nn.Module, given: Inputs) -> tuple[str, ...]:
    """The two children, the largest ones, that must both be zero for the block to give back its input; or none."""
    children = {name: child for name, child in block.named_children() if not _PARTS.search(type(child).__name__)}
    largest_first = sorted(children, key=lambda name: -count_parameters(children[name]))

    def gives_back_without(*names: str) -> bool:
        for name in names:
            setattr(block, name, Zero())
        answer = _gives_back(block, *given)
        for name in names:
            setattr(block, name, children[name])
        return answer

    if any(gives_back_without(name) for name in children):
        return ()
    for pair in combinations(largest_first, 2):
        if gives_back_without(*pair):
            return tuple(name for name in children if name in pair)
    return ()
