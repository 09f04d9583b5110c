"""Edges: the places of a network that adaptation may change (eq. 1 of the paper)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ssl_adapt.adaptation.scaled_sum import add_scaled, fork, scale_by, window

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
        operation: what the plain network computes there, in words: "conv 3x3", "identity", "none".
        in_channels: channels of the tensor that enters.
        out_channels: channels of the tensor that leaves.
        stride: height (and width) of the input over that of the output.
        cell: path of the cell that the edge belongs to.
        cell_type: cells of the same type may share theta; their edges at the same place have the same kind.
        place: the edge's name within its cell.
        source: the node of the cell that the edge leaves.
        target: the node of the cell that the edge enters; a node sums its edges. A name that ends in "+" says
            that something else than edges comes to it as well.
        candidates: what the edge may become; "original" is always among them.
    """

    name: str
    kind: Kind
    operation: str
    in_channels: int
    out_channels: int
    stride: int
    cell: str
    cell_type: str
    place: str
    source: str
    target: str
    candidates: tuple[Choice, ...] = CHOICES

    @property
    def changes_shape(self) -> bool:
        """Whether input and output differ in channels or size."""
        return self.in_channels != self.out_channels or self.stride != 1

    def allows(self, choice: Choice, shape_change: ShapeChange) -> bool:
        """Whether the edge may become `choice`."""
        has_identity = self.kind == "identity" or not (shape_change == "forbid" and self.changes_shape)
        return choice in self.candidates and (choice != "identity" or has_identity)


@runtime_checkable
class Adaptable(Protocol):
    """A network that declares its edges. The answer is the same before, during and after adaptation."""

    def edge_specs(self) -> Sequence[EdgeSpec]:
        """The edges in the order in which the forward pass meets them."""
        ...


class Zero(nn.Module):
    """The none operation: a zero tensor without parameters. A node that sums several edges skips it.

    Args:
        out_channels: None keeps the shape of the input, whatever it is.
        stride: height (and width) of the input over that of the output.
    """

    def __init__(self, out_channels: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Zeros (B, out_channels, ceil(H / stride), ceil(W / stride)); never `0 * x`, which is NaN for infinite x."""
        if self.out_channels is None:
            return torch.zeros_like(x)
        height, width = (-(-size // self.stride) for size in x.shape[-2:])
        return x.new_zeros(x.shape[0], self.out_channels, height, width)

    def extra_repr(self) -> str:
        return f"out_channels={self.out_channels}, stride={self.stride}"


class Skip(nn.Identity):
    """The identity in place of an operation, whatever else the operation was given beside its input."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:  # type: ignore[override]
        """x as it is."""
        return x


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
        if self.stride > 1:  # neither this nor a pad below 0 is a slice, whose gradient is not channels-last
            x = F.avg_pool2d(x, 1, self.stride)
        return F.pad(x, (0, 0, 0, 0, 0, self.out_channels - self.in_channels))

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
    """The identity candidate of an edge, or None where the edge may not become one."""
    if not spec.allows("identity", shape_change):
        return None
    if not spec.changes_shape:
        return Skip()
    candidate = Pad if shape_change == "pad" else Project
    return candidate(spec.in_channels, spec.out_channels, spec.stride)


def last_norm_name(operation: nn.Module) -> str | None:
    """The path, within `operation`, of the affine BatchNorm that ends it, or None.

    A module after it whose attribute `commutes_with_scale` is true, such as drop-path, does not count. Classes
    that do more in their own forward, such as a BatchNorm with an activation, are no such end; one of another
    package that does not more says so by an attribute `is_plain_batch_norm`.
    """
    path: list[str] = []
    last: Any = operation
    while type(last).forward is nn.Sequential.forward and len(last):
        children = [c for c in last.named_children() if not getattr(c[1], "commutes_with_scale", False)]
        if not children:
            return None
        name, last = children[-1]
        path.append(name)
    plain = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)
    is_norm = type(last).forward in plain or getattr(last, "is_plain_batch_norm", False)
    return ".".join(path) if is_norm and last.affine and path else None


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

    def forward(self, x: Tensor, *context: Any, total: Tensor | None = None, **keywords: Any) -> Tensor:
        """The edge's output, or its sum with `total`, which is overwritten.

        Args:
            x: (B, in_channels, H, W), or any shape where the operation keeps it.
            context: what else the operation takes; an attention's mask, say.
            total: (B, out_channels, ceil(H / stride), ceil(W / stride)), the output of another mixed edge.
            keywords: like `context`.
        """
        _, theta_id, theta_same = self._theta[0].unbind()
        if self.spec.kind == "operation":
            output = self._mix_operation((x, *context), keywords, theta_id, theta_same)
            return output if total is None else total + output
        if self.spec.kind == "identity":  # both candidates are the network's own shortcut
            return _add_identity(total, x, self.operation, theta_id + theta_same)
        if self.identity is None:
            return cast(Tensor, self.operation(x)) if total is None else total
        return _add_identity(total, x, self.identity, theta_id)

    def _mix_operation(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any], theta_id: Tensor, theta_same: Tensor
    ) -> Tensor:
        def same(*arguments: Any) -> Tensor:
            return _scaled(self.operation, self._norm, arguments, keywords, theta_same)

        x, *context = arguments
        if self.identity is None:
            return same(*arguments)
        if self._norm is None or isinstance(self.identity, Project):
            return _add_identity(same(*arguments), x, self.identity, theta_id)
        window_of = (self.spec.out_channels, self.spec.stride) if self.spec.changes_shape else (x.shape[1], 1)
        if not x.requires_grad:  # the first edges of an architecture pass: no gradient goes further back
            return add_scaled(same(*arguments), window(x, *window_of), theta_id, False)
        x, seen = fork(x, theta_id, *window_of)
        return add_scaled(same(x, *context), seen, theta_id, True)


def _scaled(
    operation: nn.Module, norm: str | None, arguments: tuple[Any, ...], keywords: dict[str, Any], scale: Tensor
) -> Tensor:
    """`scale * operation(...)`, the scale folded into the BatchNorm named `norm`: no pass over the output."""
    if norm is None:
        return scale_by(operation(*arguments, **keywords), scale)
    names = (f"{norm}.weight", f"{norm}.bias")
    folded = {name: operation.get_parameter(name) * scale for name in names}
    return cast(Tensor, functional_call(operation, folded, arguments, keywords, tie_weights=False))


def _add_identity(total: Tensor | None, x: Tensor, identity: nn.Module, scale: Tensor) -> Tensor:
    """total + scale * identity(x), written over `total`, or a new tensor without one."""
    if total is None:
        return scale_by(identity(x), scale)
    if isinstance(identity, Pad):  # zeros need not be added
        return add_scaled(total, window(x, identity.out_channels, identity.stride), scale, False)
    return add_scaled(total, identity(x), scale, False)
