"""What a network costs: parameters and multiply-adds."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn, no_grad
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

POINTWISE = {
    F.batch_norm, F.layer_norm, F.group_norm, F.relu, torch.relu, F.relu6, F.hardtanh, F.gelu, F.silu, F.hardswish,
    F.hardsigmoid, torch.sigmoid, Tensor.sigmoid,
}  # fmt: skip


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
    counter = FlopCounterMode(display=False)
    with no_grad(), counter, _WithoutPointwise():
        copy(x.to("meta"), *(each.to("meta") if isinstance(each, Tensor) else each for each in context), **keywords)
    return int(counter.get_total_flops()) // 2


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy on the meta device; weights are not copied on the way."""
    meta: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        moved = tensor.detach().to("meta")
        meta[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
    return deepcopy(module, meta).to("meta")


class _WithoutPointwise(TorchFunctionMode):
    """Passes over what keeps a tensor's shape and has no multiply-adds: on the meta device it takes longest."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func in POINTWISE and args else func(*args, **(kwargs or {}))
