"""Sums with a learnt scale, whose gradients take as few passes over memory as they can."""

from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _inner_product(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> as a float32 (or float64) scalar; without a temporary where types and memory layouts agree."""
    if a.dtype != b.dtype or a.dtype in (torch.float16, torch.bfloat16):
        return (a.float() * b.float()).sum()
    if b.dim() == 4 and b.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


class _AddScaled(torch.autograd.Function):
    """y + scale * x, written over y, where x may have fewer channels than y: the first ones.

    The gradient of `scale` is an inner product: one pass over memory and no temporary. With `scaled_by_fork`, x
    came from `_Fork`, which multiplies x's gradient by `scale`.
    """

    @staticmethod
    def forward(ctx, y: Tensor, x: Tensor, scale: Tensor, scaled_by_fork: bool) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, scale)
        ctx.scaled_by_fork = scaled_by_fork
        ctx.mark_dirty(y)
        y.narrow(1, 0, x.shape[1]).addcmul_(x, scale.to(x.dtype))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        x, scale = ctx.saved_tensors
        needs_y, needs_x, needs_scale, _ = ctx.needs_input_grad
        grad_window = grad.narrow(1, 0, x.shape[1])
        grad_x = None
        if needs_x:
            grad_x = grad_window if ctx.scaled_by_fork else grad_window * scale.to(grad.dtype)
        grad_scale = _inner_product(grad_window, x).to(scale.dtype) if needs_scale else None
        return grad if needs_y else None, grad_x, grad_scale, None


class _Scale(torch.autograd.Function):
    """scale * x; the gradient of `scale` is an inner product."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, scale)
        return x * scale.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        x, scale = ctx.saved_tensors
        needs_x, needs_scale = ctx.needs_input_grad
        grad_x = grad * scale.to(grad.dtype) if needs_x else None
        return grad_x, _inner_product(grad, x).to(scale.dtype) if needs_scale else None


class _Fork(torch.autograd.Function):
    """x and a window of it, whose gradients join as `grad_x + scale * grad_window` in one pass instead of two.

    The sum overwrites `grad_x`: that must be a gradient which nothing else holds, as a convolution's is. (A full
    backward hook on that convolution would hold it.)
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, channels: int, stride: int):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(scale)
        ctx.window = channels, stride
        return x.detach(), window(x.detach(), channels, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_x: Tensor, grad_window: Tensor):  # type: ignore[no-untyped-def]
        (scale,) = ctx.saved_tensors
        window(grad_x, *ctx.window).addcmul_(grad_window, scale.to(grad_x.dtype))
        return grad_x, None, None, None


def window(x: Tensor, channels: int, stride: int) -> Tensor:
    """The first channels of x at every stride-th row and column: a view, and what `Pad` keeps of x."""
    return x[:, :channels, ::stride, ::stride] if stride > 1 or channels < x.shape[1] else x


def add_scaled(y: Tensor, x: Tensor, scale: Tensor, scaled_by_fork: bool) -> Tensor:
    """y + scale * x, written over y; x may have fewer channels, the first ones, and may come from `fork`."""
    return cast(Tensor, _AddScaled.apply(y, x, scale, scaled_by_fork))


def scale_by(x: Tensor, scale: Tensor) -> Tensor:
    """scale * x."""
    return cast(Tensor, _Scale.apply(x, scale))


def fork(x: Tensor, scale: Tensor, channels: int, stride: int) -> tuple[Tensor, Tensor]:
    """x, and the window of it that `add_scaled` will multiply by `scale`."""
    return cast(tuple[Tensor, Tensor], _Fork.apply(x, scale, channels, stride))
