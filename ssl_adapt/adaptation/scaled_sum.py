"""Sums with learnt scales, whose gradients take as few passes over memory as they can.

`fork` gives the terms that identities read from a tensor, `sum_terms` adds terms at a node. Backward, the sum hands
its gradient on as it is, and the fork scales and adds all those of its tensor. Both write over nothing but tensors
that they have just made, so that activations and gradients which others keep stay right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Reading:
    """What an identity reads of a tensor: all of it, or what `Pad` keeps of it.

    Attributes:
        scale: by which it is multiplied, of shape ().
        channels: of the sum that it enters, where it may have others than the tensor: the first ones are read.
        stride: every so-many-th row and column is read.
    """

    scale: Tensor
    channels: int | None = None
    stride: int = 1


@dataclass(frozen=True)
class Term:
    """One term of a sum: `scale * x`, or `x` alone where `scale` is None.

    Attributes:
        x: any shape; (B, C, H, W) where `channels` is given.
        scale: of shape ().
        channels: of the sum, where x may have fewer: the first ones.
        is_forked: whether x came from `fork`, which multiplies its gradient by `scale`.
    """

    x: Tensor
    scale: Tensor | None = None
    channels: int | None = None
    is_forked: bool = False

    @property
    def is_partial(self) -> bool:
        """Whether the sum has more channels than x."""
        return self.channels is not None and self.channels > self.x.shape[1]


def fork(x: Tensor, readings: Sequence[Reading]) -> tuple[Tensor, list[Term]]:
    """x for whoever else reads it, and the term of each reading."""
    if not (readings and x.requires_grad):
        return x, [Term(_window(x, r.channels, r.stride), r.scale, r.channels) for r in readings]
    places = [(r.channels, r.stride) for r in readings]
    x, *windows = _Fork.apply(x, places, *(r.scale for r in readings))
    return x, [Term(window, r.scale, r.channels, True) for window, r in zip(windows, readings, strict=True)]


def sum_terms(terms: Sequence[Term]) -> Tensor:
    """The sum, partial terms last; a new tensor, unless there is but one term, without a scale."""
    if all(term.scale is None for term in terms):  # a plain network
        total = terms[0].x
        for term in terms[1:]:
            total = total + term.x
        return total
    terms = sorted(terms, key=lambda term: term.is_partial)  # after a whole one, which makes the sum's tensor
    kinds = [(term.channels, term.is_forked) for term in terms]
    tensors = [tensor for term in terms for tensor in (term.x, term.scale)]
    mixed: Tensor = _SumTerms.apply(kinds, *tensors)
    return mixed


class _Total:
    """A sum that grows in place, but never over a tensor of someone else."""

    def __init__(self, value: Tensor | None = None) -> None:
        self.value = value
        self._own: Tensor | None = None  # the value, where it was made here

    def set_to_zero(self, shape: Sequence[int], like: Tensor) -> None:
        """Begin with zeros (B, C, H, W) of the type, device and memory format of `like`."""
        memory_format = torch.channels_last if like.stride(1) == 1 else torch.contiguous_format
        zeros = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)
        self.value = self._own = zeros.zero_()

    def add(self, x: Tensor, scale: Tensor | None, channels: int | None = None, stride: int = 1) -> None:
        """Add `scale * x`, or x without a scale; where its shape differs, to the window of the sum that it fits."""
        scale = None if scale is None else scale.to(x.dtype)
        if self.value is None:
            self.value, self._own = (x, None) if scale is None else (x * scale,) * 2
        elif scale is None:
            self.value = self._own = torch.add(self.value, x, out=self._own)
        elif x.shape == self.value.shape:
            self.value = self._own = torch.addcmul(self.value, x, scale, out=self._own)
        else:
            self.value = self._own = self.value.clone() if self._own is None else self._own
            _window(self._own, channels, stride).addcmul_(x, scale)


class _SumTerms(torch.autograd.Function):
    """The gradient of a scale is an inner product: one pass over memory and no temporary."""

    @staticmethod
    def forward(ctx: Any, kinds: Sequence[tuple[int | None, bool]], *tensors: Any) -> Any:
        xs, scales = tensors[::2], tensors[1::2]
        dtype = xs[0].dtype
        for x in xs[1:]:
            dtype = torch.promote_types(dtype, x.dtype)
        total = _Total()
        for x, scale, (channels, _) in zip(xs, scales, kinds, strict=True):
            if total.value is None:
                x = x.to(dtype)
                if channels is not None and channels != x.shape[1]:
                    total.set_to_zero((x.shape[0], channels, *x.shape[2:]), x)
            total.add(x, scale, x.shape[1])
        ctx.kinds = [(channels and x.shape[1], is_forked) for x, (channels, is_forked) in zip(xs, kinds, strict=True)]
        kept = (x if needed else None for x, needed in zip(xs, ctx.needs_input_grad[2::2], strict=True))
        ctx.save_for_backward(*scales, *kept)
        return total.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        count = len(ctx.kinds)
        saved = ctx.saved_tensors  # read once, as activations that are computed again ask
        scales, xs = saved[:count], saved[count:]
        gradients: list[Tensor | None] = [None]
        for index, (channels, is_forked) in enumerate(ctx.kinds):
            x, scale, needs_x = xs[index], scales[index], ctx.needs_input_grad[1 + 2 * index]
            seen = _window(grad, channels, 1)
            grad_x = seen if is_forked or scale is None else seen * scale.to(seen.dtype)
            gradients.append(grad_x if needs_x else None)
            gradients.append(None if x is None else _inner_product(seen, x).to(scale.dtype))
        return tuple(gradients)


class _Fork(torch.autograd.Function):
    """x and windows of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Sequence[tuple[int | None, int]], *scales: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*scales)
        ctx.shape, ctx.places = x.shape, places
        return x.detach(), *(_window(x.detach(), *place) for place in places)  # outputs must differ as objects

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *seen: Any) -> Any:
        total = _Total(grad)
        given = [r for r in zip(seen, ctx.saved_tensors, ctx.places, strict=True) if r[0] is not None]
        for gradient, scale, place in sorted(given, key=lambda r: r[0].shape != ctx.shape):  # whole ones first
            if total.value is None and gradient.shape != ctx.shape:
                total.set_to_zero(ctx.shape, gradient)
            total.add(gradient, scale, *place)
        return total.value, None, *(None for _ in ctx.places)


def _window(x: Tensor, channels: int | None, stride: int) -> Tensor:
    """The first channels of x at every stride-th row and column: a view, and what `Pad` keeps of x."""
    return x if channels is None else x[:, :channels, ::stride, ::stride]


def _inner_product(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> as a float32 (or float64) scalar; without a temporary where types and memory layouts agree."""
    if a.dtype != b.dtype or a.dtype in (torch.float16, torch.bfloat16):
        return (a.float() * b.float()).sum()
    if not (_is_dense(a) and _is_dense(b)):  # windows
        return (a * b).sum()
    if b.dim() == 4 and b.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
