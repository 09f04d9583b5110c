"""Edges: the places of a network that adaptation may change (eq. 1 of the paper)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.func import functional_call
from torch.nn.modules.module import _has_any_global_hook

from ssl_adapt.adaptation.scaled_sum import Reading, Term, fork, sum_terms

Kind = Literal["operation", "identity", "none"]
Choice = Literal["original", "identity", "none"]
ShapeChange = Literal["pad", "project", "forbid"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # of nn.Module
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


@torch.no_grad()
def fold_scale(operation: nn.Module, scale: Tensor) -> None:
    """Multiply a scale into the BatchNorm that ends the operation, if one does; in place."""
    norm = last_norm_name(operation)
    for parameter in operation.get_submodule(norm).parameters() if norm is not None else ():
        parameter.mul_(scale)


class MixedEdge(nn.Module):
    """theta_none * 0 + theta_id * x + theta_same * op(x).

    `theta` is a Parameter of shape (3,), in the order none, identity, same. It is held outside the module's
    parameters, so that the weights' optimiser, weight decay and data-parallel wrappers never see it. Where the
    activations are bfloat16, theta_id and the scale of a shortcut act rounded to its 8 bits; gradients do not. That
    rounding is not what sets the error of theta's gradient: relative to its norm, against float64, at random weights,
    8 draws of 64 images of 16 px, that is 0.06 on `resnet20` (0.05 by eq. 1 in ordinary operations) and 0.9 (1.2) on
    `resnet20_nat`, whose float32 gradient is already 0.016 off (both of width 8; CPU).

    What hooks and `retain_grad` show is what eq. 1 says: an edge with a hook in it, or any global one, is computed in
    ordinary operations, and without one nothing is written over that others could hold. A hook that an operation's own
    code puts on its input gives the gradient through the operation alone.

    Source: eq. 1 of the paper. The term of `none` is left out, as its value and its gradient are exactly 0.
    """

    def __init__(self, spec: EdgeSpec, operation: nn.Module, theta: nn.Parameter, shape_change: ShapeChange) -> None:
        super().__init__()
        self.spec = spec
        self.operation = operation
        self.identity = None if spec.kind == "identity" else create_identity(spec, shape_change)
        self._theta = (theta,)  # a tuple hides it from nn.Module's registration
        self._norm = last_norm_name(operation)

    def forward(self, x: Tensor, *context: Any, **keywords: Any) -> Tensor:
        """The edge's output.

        Args:
            x: (B, in_channels, H, W), or any shape where the operation keeps it.
            context: what else the operation takes; an attention's mask, say.
            keywords: like `context`.
        """
        if self.is_watched():
            return self._by_eq_1(x, *context, **keywords)
        terms = Source(x, self).terms(self, *context, **keywords)
        return sum_terms(terms) if terms else cast(Tensor, self.operation(x))

    def is_watched(self) -> bool:
        """Whether hooks may see what happens inside: every tensor is then that of eq. 1, at the price of speed.

        So it is too where torch.compile traces the edge: it joins ordinary operations into kernels of its own.
        """
        return (
            is_compiling()
            or bool(_has_any_global_hook())
            or any(
                "forward" in vars(module) or any(getattr(module, name) for name in HOOKS) for module in self.modules()
            )
        )

    def skip(self) -> nn.Module | None:
        """The identity candidate: of a shortcut, whose candidates are the same, the shortcut itself."""
        return self.operation if self.spec.kind == "identity" else self.identity

    def scales(self) -> tuple[Tensor, Tensor]:
        """What the identity and the operation are multiplied by; of a shortcut the first, for both candidates."""
        _, theta_id, theta_same = self._theta[0].unbind()
        return (theta_id + theta_same if self.spec.kind == "identity" else theta_id), theta_same

    def scaled_operation(self, scale: Tensor, x: Tensor, *context: Any, **keywords: Any) -> Term:
        """`scale * operation(x)`, the scale folded into the BatchNorm that ends the operation if one does."""
        if self._norm is None:
            return Term(self.operation(x, *context, **keywords), scale)
        norm: Any = self.operation.get_submodule(self._norm)
        folded = {f"{self._norm}.weight": norm.weight * scale, f"{self._norm}.bias": norm.bias * scale}
        return Term(functional_call(self.operation, folded, (x, *context), keywords, tie_weights=False))

    def _by_eq_1(self, x: Tensor, *context: Any, **keywords: Any) -> Tensor:
        theta_id, theta_same = self.scales()
        if self.spec.kind == "identity":
            return theta_id * cast(Tensor, self.operation(x))
        same = theta_same * cast(Tensor, self.operation(x, *context, **keywords))
        return same if self.identity is None else same + theta_id * cast(Tensor, self.identity(x))


class Source:
    """A tensor and the edges that read it, so that the gradients of their identities are joined at once.

    Args:
        x: (B, C, H, W), or any shape that the edges take.
        edges: those that will read it. Only mixed ones matter.
    """

    def __init__(self, x: Tensor, *edges: nn.Module) -> None:
        self.x = x
        mixed = [edge for edge in edges if isinstance(edge, MixedEdge) and not edge.is_watched()]
        self._scales = {edge: edge.scales() for edge in mixed}
        found = {edge: _reading(edge, scale) for edge, (scale, _) in self._scales.items()}
        readings = {edge: reading for edge, reading in found.items() if reading is not None}
        self._forked, terms = fork(x, list(readings.values()))
        self._read = dict(zip(readings, terms, strict=True))

    def terms(self, edge: nn.Module, *context: Any, **keywords: Any) -> list[Term]:
        """What `edge` adds to the node that it enters."""
        if edge not in self._scales:
            return [Term(edge(self.x, *context, **keywords))]
        theta_id, theta_same = self._scales[edge]
        skip, terms = edge.skip(), []
        if edge.spec.kind == "operation":
            terms.append(edge.scaled_operation(theta_same, self._forked, *context, **keywords))
        if edge in self._read:
            terms.append(self._read[edge])
        elif skip is not None:
            terms.append(Term(skip(self._forked), theta_id))
        return terms


def _reading(edge: MixedEdge, scale: Tensor) -> Reading | None:
    """How the identity of an edge reads its input, or None where it computes something or there is none."""
    skip = edge.skip()
    if isinstance(skip, Pad):
        return Reading(scale, skip.out_channels, skip.stride)
    return Reading(scale) if isinstance(skip, nn.Identity) else None
