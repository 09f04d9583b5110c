"""BatchNorm over several processes: statistics of the whole batch, or of each process's share."""

from collections.abc import Iterable
from typing import cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from ssl_adapt.errors import UserError
from ssl_adapt.processes import process_count, sum_with_gradient


class CpuSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """SyncBatchNorm on CPUs, where torch's own refuses to run: the same statistics, names and gradients."""

    is_plain_batch_norm = True  # its scale and shift end it, so theta may be folded into them

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape; in training normalised with the statistics of all processes' rows."""
        if not self.training or process_count() == 1:
            return super().forward(input)
        kept_type, input = input.dtype, input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        sums = sum_with_gradient(torch.cat([input.sum(axes), input.new_tensor([input.numel() / input.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean.view(shape)
        variance = sum_with_gradient(centred.square().sum(axes)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                seen = cast(Tensor, self.num_batches_tracked).add_(1)
                share = 1 / int(seen) if self.momentum is None else self.momentum  # None: the mean of all batches
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if not self.affine:
            return normalised.to(kept_type)
        return torch.addcmul(self.bias.view(shape), normalised, self.weight.view(shape)).to(kept_type)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions: those of the class whose place this one took."""


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with BatchNorms over all processes; the network itself is changed where it is not one.

    On a GPU these are torch's, by way of timm (not run on a GPU).

    Raises:
        ValueError: if a BatchNorm is of a class that can't be synchronised on a CPU.
    """
    if device.type == "cuda":
        return cast(nn.Module, convert_sync_batchnorm(network))
    for name, module in list(network.named_modules()):
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if type(module).forward is not nn.modules.batchnorm._BatchNorm.forward:
            raise UserError(
                f"train.sync_batchnorm=true: on CPUs {type(module).__name__} ('{name}') can't be synchronised; "
                "set train.sync_batchnorm=false"
            )
        module.__class__ = CpuSyncBatchNorm  # same parameters, buffers and hooks; only the statistics differ
    return network


def restore(copies: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give each tensor the values of its copy again."""
    for tensor, copy in copies:
        tensor.copy_(copy)
