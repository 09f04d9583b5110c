"""What a network costs: parameters and multiply-adds."""

from torch import Tensor, nn, no_grad
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """The number of scalars in the module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one forward pass of `x` in eval mode: convolutions and matrix products.

    PyTorch's counter gives 2 a multiply-add; a one-image batch gives the figure that papers quote.
    """
    modes = {child: child.training for child in module.modules()}
    counter = FlopCounterMode(display=False)
    try:
        module.eval()
        with no_grad(), counter:
            module(x)
    finally:
        for child, training in modes.items():
            child.training = training
    return int(counter.get_total_flops()) // 2
