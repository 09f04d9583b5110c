"""The processes of a run: how many there are, and rows, means and checks over all of them.

Everything here is collective where a process group exists, so all processes must call it, in the same order; where
none does, there is one process, and nothing is sent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def process_count() -> int:
    """The number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if process_count() > 1 else 0


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, one below the other in the processes' order: (sum of all N, ...) from (N, ...).

    The number of rows may differ between processes, everything else may not. The gradient of the rows of this
    process is the sum of the gradients that they get in all processes, so that what each process computes from
    all rows adds up to the gradient of the sum of the processes' results.
    """
    return cast(Tensor, _GatherRows.apply(rows)) if process_count() > 1 else rows


def row_counts(count: int) -> list[int]:
    """How many rows each process has, in the processes' order; `count` are this one's."""
    if process_count() == 1:
        return [count]
    counts = torch.zeros(process_count(), dtype=torch.int64, device=_device())
    counts[process_index()] = count
    dist.all_reduce(counts)
    return cast(list[int], counts.tolist())


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor, in place, by its mean over the processes; all are floating, and go in one message."""
    if process_count() == 1 or not tensors:
        return
    widest = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    flat = torch.cat([tensor.detach().reshape(-1).to(widest) for tensor in tensors]).to(_device())
    dist.all_reduce(flat)
    flat /= process_count()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(mean.view_as(tensor))


def sum_all(tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes, on the same device; no gradient passes."""
    if process_count() == 1:
        return tensor
    total = tensor.detach().to(_device(), copy=True)
    dist.all_reduce(total)
    return total.to(tensor.device)


def sum_with_gradient(tensor: Tensor) -> Tensor:
    """`sum_all` through which gradients pass: that of each process's tensor is the sum over the processes."""
    return cast(Tensor, _SumAll.apply(tensor)) if process_count() > 1 else tensor


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return bool(sum_all(torch.tensor(int(flag))) > 0)


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, in the processes' order; each is pickled, so they come from this run alone."""
    if process_count() == 1:
        return [value]
    values: list[Any] = [None] * process_count()
    dist.all_gather_object(values, value)
    return values


def whole_tensors(value: Any) -> Any:
    """The value, dicts, lists and tuples in it included, with all numbers of tensors that are spread over processes."""
    if isinstance(value, Mapping):
        return {key: whole_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(whole_tensors, value))
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def is_lost_process(error: BaseException) -> bool:
    """Whether the error says no more than that another process has gone."""
    is_gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return process_count() > 1 and (is_gloo or isinstance(error, dist.DistError))


def check_same_everywhere(tensor: Tensor, what: str) -> None:
    """Compare a tensor over all processes.

    Raises:
        RuntimeError: if any process has another value, NaN included.
    """
    if process_count() == 1:
        return
    mine = tensor.detach().to(_device(), torch.float64)
    largest, smallest = mine.clone(), mine.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    if not torch.equal(largest, smallest):
        raise RuntimeError(
            f"{what} differs between the processes, by up to {(largest - smallest).abs().max().item():.3g}: "
            "this is a defect of ssl_adapt, or of the hardware"
        )


def _device() -> torch.device:
    """Where tensors must be to be sent: on this process's GPU with NCCL, else on the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = row_counts(len(rows))
        ctx.counts = counts
        # Equal lengths go without padding; gloo and NCCL both want them.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        sent = padded.to(_device())
        received = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(received, sent)
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)]).to(rows.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return cast(Tensor, sum_all(gradient.contiguous()).split(ctx.counts)[process_index()])


class _SumAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return sum_all(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_all(gradient)
