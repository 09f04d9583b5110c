"""What a network costs: parameters and multiply-adds."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn, no_grad
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """The number of scalars in the module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, x: Tensor, *context: Any, **keywords: Any) -> int:
    """Multiply-adds of one forward pass in eval mode: convolutions and matrix products, attention's too.

    What follows `module` is what it takes, a tensor first.

    A copy on the meta device is counted: nothing is computed, and no device's kernels hide what they do. PyTorch's
    counter gives 2 a multiply-add; a one-image batch gives the figure that papers quote.
    """
    copy = deepcopy(module).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with no_grad(), counter:
        copy(x.to("meta"), *(each.to("meta") if isinstance(each, Tensor) else each for each in context), **keywords)
    return int(counter.get_total_flops()) // 2
