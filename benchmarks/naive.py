"""Eq. 1 written directly, term by term: the reference for the time and the gradients of mixed edges."""

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.adaptation import START
from ssl_adapt.adaptation.architecture import edge_specs, replace_module
from ssl_adapt.adaptation.edge import EdgeSpec, create_identity


class NaiveEdge(nn.Module):
    """theta_id * x + theta_same * op(x), term by term, left to autograd.

    The term of `none` is left out here as it is in `MixedEdge`: its value and gradient are 0, and adding it
    would only make this form slower than it has to be.

    Source: eq. 1 of the paper; where the shape changes the identity is the padded one.
    """

    def __init__(self, spec: EdgeSpec, operation: nn.Module, theta: nn.Parameter) -> None:
        super().__init__()
        self.operation = operation
        self.identity = operation if spec.kind == "identity" else create_identity(spec, "pad")
        self._theta = (theta,)  # a tuple hides it from the weights' optimiser

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        _, theta_id, theta_same = self._theta[0].unbind()
        assert self.identity is not None  # only "forbid" leaves it out
        mixed: Tensor = theta_id * self.identity(x) + theta_same * self.operation(x)
        return mixed


def mix_naively(model: nn.Module) -> dict[str, nn.Parameter]:
    """Make every edge of a plain network a `NaiveEdge`, in place; theta (3,) by the edge's name.

    Theta has the weights' device and dtype and starts at (0, 0, 1).
    """
    like = next(model.parameters())
    thetas = {}
    for spec in edge_specs(model):
        theta = nn.Parameter(torch.tensor(START, device=like.device, dtype=like.dtype))
        thetas[spec.name] = theta
        replace_module(model, spec.name, NaiveEdge(spec, model.get_submodule(spec.name), theta))
    return thetas
