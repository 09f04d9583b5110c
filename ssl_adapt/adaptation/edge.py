"""Edges: the places of a network that adaptation may change (eq. 1 of the paper)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

Kind = Literal["operation", "identity", "none"]
Choice = Literal["original", "identity", "none"]
ShapeChange = Literal["pad", "project", "forbid"]

CHOICES: tuple[Choice, ...] = ("original", "identity", "none")


@dataclass(frozen=True)
class EdgeSpec:
    """One edge as plain data: a submodule of the network and its place in the graph.

    Attributes:
        name: path of the submodule, as in `nn.Module.get_submodule`.
        kind: what the plain network has there. A module that no spec names is not an edge.
        in_channels: channels of the tensor that enters.
        out_channels: channels of the tensor that leaves.
        stride: height (and width) of the input over that of the output.
        cell: path of the cell that the edge belongs to.
        cell_type: cells of the same type may share theta; their edges at the same place have the same kind.
        place: the edge's name within its cell.
    """

    name: str
    kind: Kind
    in_channels: int
    out_channels: int
    stride: int
    cell: str
    cell_type: str
    place: str

    @property
    def changes_shape(self) -> bool:
        """Whether input and output differ in channels or size."""
        return self.in_channels != self.out_channels or self.stride != 1


@runtime_checkable
class Adaptable(Protocol):
    """A network that declares its edges. The answer is the same before, during and after adaptation."""

    def edge_specs(self) -> Sequence[EdgeSpec]:
        """The edges in the order in which the forward pass meets them."""
        ...


class Zero(nn.Module):
    """The none operation: a zero tensor without parameters. A node that sums several edges skips it."""

    def __init__(self, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros (B, out_channels, ceil(H / stride), ceil(W / stride)); never `0 * x`, which is NaN for infinite x."""
        height, width = (-(-size // self.stride) for size in x.shape[-2:])
        return x.new_zeros(x.shape[0], self.out_channels, height, width)

    def extra_repr(self) -> str:
        return f"out_channels={self.out_channels}, stride={self.stride}"


class Pad(nn.Module):
    """The identity between different shapes, without parameters: subsample, then zero-pad or cut the channels.

    Source: He et al. 2016, shortcut option A; here the new channels are the last ones.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        x = x[:, : self.out_channels, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, max(0, self.out_channels - self.in_channels)))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


class Project(nn.Sequential):
    """The identity between different shapes as a learnt 1x1 convolution with BatchNorm (He et al. 2016, option B)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")


def create_identity(spec: EdgeSpec, shape_change: ShapeChange) -> nn.Module | None:
    """The identity candidate of an edge, or None where the shape changes and `shape_change` forbids it."""
    if not spec.changes_shape:
        return nn.Identity()
    if shape_change == "forbid":
        return None
    candidate = Pad if shape_change == "pad" else Project
    return candidate(spec.in_channels, spec.out_channels, spec.stride)


def last_norm_name(operation: nn.Module) -> str | None:
    """The path, within `operation`, of the affine BatchNorm that ends it, or None."""
    path, last = [], operation
    while isinstance(last, nn.Sequential) and len(last):
        name, last = list(last.named_children())[-1]
        path.append(name)
    is_affine_norm = isinstance(last, nn.modules.batchnorm._BatchNorm) and last.affine
    return ".".join(path) if is_affine_norm and path else None


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
        return x.detach(), _window(x.detach(), channels, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_x: Tensor, grad_window: Tensor):  # type: ignore[no-untyped-def]
        (scale,) = ctx.saved_tensors
        _window(grad_x, *ctx.window).addcmul_(grad_window, scale.to(grad_x.dtype))
        return grad_x, None, None, None


def _window(x: Tensor, channels: int, stride: int) -> Tensor:
    """The first channels of x at every stride-th row and column: a view, and what `Pad` keeps of x."""
    return x[:, :channels, ::stride, ::stride] if stride > 1 or channels < x.shape[1] else x


# Typed names for the functions above.
def _add_scaled(y: Tensor, x: Tensor, scale: Tensor, scaled_by_fork: bool) -> Tensor:
    return cast(Tensor, _AddScaled.apply(y, x, scale, scaled_by_fork))


def _scale(x: Tensor, scale: Tensor) -> Tensor:
    return cast(Tensor, _Scale.apply(x, scale))


def _fork(x: Tensor, scale: Tensor, channels: int, stride: int) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], _Fork.apply(x, scale, channels, stride))


class MixedEdge(nn.Module):
    """theta_none * 0 + theta_id * x + theta_same * op(x).

    `theta` is a Parameter of shape (3,), in the order none, identity, same. It is held outside the module's
    parameters, so that the weights' optimiser, weight decay and data-parallel wrappers never see it. Where the
    activations are bfloat16, theta_id and the scale of a shortcut act rounded to its 8 bits; gradients do not.

    Source: eq. 1 of the paper. The term of `none` is left out, as its value and its gradient are exactly 0.
    """

    def __init__(self, spec: EdgeSpec, operation: nn.Module, theta: nn.Parameter, shape_change: ShapeChange) -> None:
        super().__init__()
        self.spec = spec
        self.operation = operation
        self.identity = None if spec.kind == "identity" else create_identity(spec, shape_change)
        self._theta = (theta,)  # a tuple hides it from nn.Module's registration
        self._norm = last_norm_name(operation)

    def forward(self, x: Tensor, total: Tensor | None = None) -> Tensor:
        """The edge's output, or its sum with `total`, which is overwritten.

        Args:
            x: (B, in_channels, H, W).
            total: (B, out_channels, ceil(H / stride), ceil(W / stride)), the output of another mixed edge.
        """
        _, theta_id, theta_same = self._theta[0].unbind()
        if self.spec.kind == "operation":
            output = self._mix_operation(x, theta_id, theta_same)
            return output if total is None else total + output
        if self.spec.kind == "identity":  # both candidates are the network's own shortcut
            return _add_identity(total, x, self.operation, theta_id + theta_same)
        if self.identity is None:
            return cast(Tensor, self.operation(x)) if total is None else total
        return _add_identity(total, x, self.identity, theta_id)

    def _mix_operation(self, x: Tensor, theta_id: Tensor, theta_same: Tensor) -> Tensor:
        if self.identity is None:
            return _scaled(self.operation, self._norm, x, theta_same)
        if self._norm is None or isinstance(self.identity, Project):
            same = _scaled(self.operation, self._norm, x, theta_same)
            return _add_identity(same, x, self.identity, theta_id)
        window_of = self.spec.out_channels, self.spec.stride
        if not x.requires_grad:  # the first edges of an architecture pass: no gradient goes further back
            same = _scaled(self.operation, self._norm, x, theta_same)
            return _add_scaled(same, _window(x, *window_of), theta_id, False)
        x, window = _fork(x, theta_id, *window_of)
        return _add_scaled(_scaled(self.operation, self._norm, x, theta_same), window, theta_id, True)


def _scaled(operation: nn.Module, norm: str | None, x: Tensor, scale: Tensor) -> Tensor:
    """`scale * operation(x)`, the scale folded into the BatchNorm named `norm`: no pass over the output."""
    if norm is None:
        return _scale(operation(x), scale)
    names = (f"{norm}.weight", f"{norm}.bias")
    folded = {name: operation.get_parameter(name) * scale for name in names}
    return cast(Tensor, functional_call(operation, folded, (x,), tie_weights=False))


def _add_identity(total: Tensor | None, x: Tensor, identity: nn.Module, scale: Tensor) -> Tensor:
    """total + scale * identity(x), written over `total`, or a new tensor without one."""
    if total is None:
        return _scale(identity(x), scale)
    if isinstance(identity, Pad):  # zeros need not be added
        return _add_scaled(total, _window(x, identity.out_channels, identity.stride), scale, False)
    return _add_scaled(total, identity(x), scale, False)
