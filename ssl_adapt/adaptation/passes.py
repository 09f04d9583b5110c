"""Which gradients a backward pass computes: the weights' (as it is), theta's, or both at once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import nn

from ssl_adapt.adaptation.statistics import statistics_at_rest


@contextmanager
def theta_alone(thetas: Sequence[nn.Parameter], modules: Sequence[nn.Module], *, update_bn: bool) -> Iterator[None]:
    """A context in which backward gives gradients to theta alone; see `Adaptation.architecture_pass`."""
    weights = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        _set_trainable(weights, False)
        with theta_too(thetas), nullcontext() if update_bn else statistics_at_rest(*modules):
            yield
    finally:
        _set_trainable(weights, True)


@contextmanager
def theta_too(thetas: Sequence[nn.Parameter]) -> Iterator[None]:
    """A context in which backward gives gradients to theta beside the weights; see `Adaptation.joint_pass`."""
    try:
        _set_trainable(thetas, True)
        yield
    finally:
        _set_trainable(thetas, False)


def _set_trainable(parameters: Iterable[nn.Parameter], trainable: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(trainable)
