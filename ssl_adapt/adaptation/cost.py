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
    copy = copy_to_meta(module).eval()
    for part in copy.modules():
        if type(part).forward is nn.modules.batchnorm._BatchNorm.forward:  # no multiply-adds, and slow on meta
            part.forward = _unchanged
    counter = FlopCounterMode(display=False)
    with no_grad(), counter:
        copy(x.to("meta"), *(each.to("meta") if isinstance(each, Tensor) else each for each in context), **keywords)
    return int(counter.get_total_flops()) // 2


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy on the meta device; weights are not copied on the way."""
    meta: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        moved = tensor.detach().to("meta")
        meta[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
    return deepcopy(module, meta).to("meta")


def _unchanged(x: Tensor) -> Tensor:
    return x
