"""Dry runs of a network: which of its submodules could be replaced by the identity or by zero."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import replace_module
from ssl_adapt.adaptation.cost import copy_to_meta
from ssl_adapt.adaptation.edge import Choice, Skip, Zero


@dataclass(frozen=True)
class EdgeRow:
    """A submodule that a glob matched, whether it became an edge, and why or why not."""

    name: str
    taken: bool
    reason: str
    channels: int = 0
    candidates: tuple[Choice, ...] = ("original",)


@dataclass
class _Calls:
    """What one forward pass did with one submodule."""

    count: int = 0
    channels: int = 0
    obstacle: str = ""
    first: float = inf  # the first of all calls is 0
    versions: list[int] = field(default_factory=list)


def matches(name: str, glob: str) -> bool:
    """Whether a dotted name matches a glob: `*` stays within one segment, `**` is any number of segments."""
    return _match_segments(name.split("."), glob.split("."))


class Probe:
    """Runs of a network on two random images, in eval mode and without gradients.

    Modes, weights and the state of the random generators are afterwards what they were. Runs with a replaced
    submodule are made by a copy on the device "meta", which computes no values, if the network runs there.

    Args:
        model: the network, on any device; on "meta" only shapes and the graph are known.
        input_size: (channels, height, width) of an image.
    """

    def __init__(self, model: nn.Module, input_size: Sequence[int]) -> None:
        weight = next(model.parameters())
        images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
        self._model = model
        self._images = images.to(weight.device, weight.dtype)
        self._calls = {name: _Calls() for name, _ in model.named_modules() if name}
        with self._watched():
            outputs = _run(model, self._images)
        self._shapes = [output.shape for output in outputs]
        # A network that hides its input at the start (zero weights, say) is judged by the graph alone.
        self._compares_images = not weight.is_meta and _tells_images_apart(outputs)
        self._light_model = self._copy_to_meta()

    def judge(self, names: Iterable[str]) -> list[EdgeRow]:
        """A row for each of the submodules, in forward order; the outermost of nested ones wins."""
        rows: list[EdgeRow] = []
        for name in sorted(names, key=lambda name: self._calls[name].first):
            outer = next((row.name for row in rows if row.taken and name.startswith(row.name + ".")), None)
            obstacle = f"inside the edge '{outer}'" if outer else self._obstacle(name)
            rows.append(EdgeRow(name, False, obstacle) if obstacle else self._judge_replacements(name))
        return rows

    def _obstacle(self, name: str) -> str:
        calls, module = self._calls[name], self._model.get_submodule(name)
        if calls.count != 1:
            return f"called {calls.count} times in a forward pass" if calls.count else "not called in a forward pass"
        if calls.obstacle:
            return calls.obstacle
        if sum(module is other for _, other in self._model.named_modules(remove_duplicate=False)) > 1:
            return "has another name in the network too"
        own = {id(parameter) for parameter in module.parameters()}
        inside = {id(submodule) for submodule in module.modules()}
        others = (m for m in self._model.modules() if id(m) not in inside)
        if any(id(parameter) in own for other in others for parameter in other.parameters(recurse=False)):
            return "shares parameters with the rest of the network"
        return ""

    def _judge_replacements(self, name: str) -> EdgeRow:
        candidates: list[Choice] = ["original"]
        reasons = []
        replacements: dict[Choice, nn.Module] = {"identity": Skip(), "none": Zero()}
        for choice, replacement in replacements.items():
            obstacle = self._try(name, replacement)
            if obstacle:
                reasons.append(f"no {choice}: {obstacle}")
            else:
                candidates.append(choice)
        taken = len(candidates) > 1
        reason = "; ".join(["keeps its input's shape", *reasons])
        return EdgeRow(name, taken, reason, self._calls[name].channels, tuple(candidates))

    def _try(self, name: str, replacement: nn.Module) -> str:
        """Why the network can't do with `replacement` in place of the submodule; empty if it can."""
        seen: list[tuple[Tensor, int]] = []
        handle = replacement.register_forward_hook(lambda _, args, __: seen.append((args[0], args[0]._version)))
        is_zero = isinstance(replacement, Zero)
        try:
            outputs = self._run_with(self._light_model, name, replacement, with_graph=is_zero)
        except Exception as error:  # whatever the network's own code raises means that it needs the module
            return f"the network fails with {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        finally:
            handle.remove()
        if [output.shape for output in outputs] != self._shapes:
            return "the network's output has another shape"
        if is_zero:
            return "" if self._sees_images(outputs, name, replacement) else "the output would not depend on the images"
        overwritten = any(x._version != version for x, version in seen)
        return "what follows writes over its output, which would be its input" if overwritten else ""

    def _sees_images(self, outputs: list[Tensor], name: str, zero: nn.Module) -> bool:
        if not any(output.requires_grad for output in outputs):  # no path in the graph leads back to the images
            return False
        if not self._compares_images:
            return True
        # A path may still carry nothing: zero multiplies what flows along it.
        return _tells_images_apart(self._run_with(self._model, name, zero))

    def _run_with(self, model: nn.Module, name: str, replacement: nn.Module, with_graph: bool = False) -> list[Tensor]:
        original = model.get_submodule(name)
        replace_module(model, name, replacement)
        try:
            return _run(model, self._images.to(next(model.parameters()).device), with_graph)
        finally:
            replace_module(model, name, original)

    def _copy_to_meta(self) -> nn.Module:
        try:
            copied = copy_to_meta(self._model)
            is_same = [output.shape for output in _run(copied, self._images.to("meta"))] == self._shapes
        except Exception:  # its code needs values (or another device); the network itself will do
            return self._model
        return copied if is_same else self._model

    @contextmanager
    def _watched(self) -> Iterator[None]:
        handles, clock = [], count()
        channels_last = getattr(self._model, "output_fmt", "NCHW") == "NHWC"  # timm's word at Swin and its like
        for name, calls in self._calls.items():
            module = self._model.get_submodule(name)
            handles.append(module.register_forward_pre_hook(_before(calls, clock), with_kwargs=True))
            handles.append(module.register_forward_hook(_after(calls, channels_last)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _run(model: Any, images: Tensor, with_graph: bool = False) -> list[Tensor]:  # Any: timm's contract
    """The features before the classifier, as a classifier may start at zero and hide them."""
    with _resting(model), torch.set_grad_enabled(with_graph):
        images = images.detach().requires_grad_(with_graph).clone()  # not a leaf, which nothing could write over
        if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
            output = model.forward_head(model.forward_features(images), pre_logits=True)
        else:
            output = model(images)
    return [output] if isinstance(output, Tensor) else [out for out in output if isinstance(out, Tensor)]


def _before(calls: _Calls, clock: Iterator[int]) -> Any:
    def note_version(_: nn.Module, arguments: tuple[Any, ...], __: dict[str, Any]) -> None:
        calls.first = min(calls.first, next(clock))
        calls.versions.append(arguments[0]._version if arguments and isinstance(arguments[0], Tensor) else -1)

    return note_version


def _after(calls: _Calls, channels_last: bool) -> Any:
    def note_call(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        calls.count += 1
        version = calls.versions.pop()
        if version < 0:
            calls.obstacle = "its first argument is not a tensor"
        elif not isinstance(output, Tensor):
            calls.obstacle = f"gives a {type(output).__name__} instead of a tensor"
        else:
            calls.obstacle = _obstacle_of_call(arguments[0], output, version)
            calls.channels = output.shape[1 if output.ndim == 4 and not channels_last else -1] if output.ndim else 0

    return note_call


def _obstacle_of_call(x: Tensor, output: Tensor, version_before: int) -> str:
    if x._version != version_before:
        return "changes its input in place"
    if x.shape != output.shape or x.dtype != output.dtype:
        return f"changes the shape: {_describe(x)} to {_describe(output)}"
    if x.untyped_storage()._cdata == output.untyped_storage()._cdata:
        return "gives its input back"
    return ""


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape[1:])} {str(x.dtype).removeprefix('torch.')}"


def _tells_images_apart(outputs: list[Tensor]) -> bool:
    return any(len(out) == 2 and not torch.equal(out[0], out[1]) for out in outputs if out.ndim)


@contextmanager
def _resting(model: nn.Module) -> Iterator[None]:
    """A context in which the model is in eval mode, and no random number is drawn from the usual generators."""
    modes = {module: module.training for module in model.modules()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    devices = sorted({parameter.device for parameter in model.parameters() if parameter.is_cuda}, key=str)
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)


def _match_segments(names: list[str], globs: list[str]) -> bool:
    if not globs:
        return not names
    if globs[0] == "**":
        return any(_match_segments(names[skipped:], globs[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], globs[0]) and _match_segments(names[1:], globs[1:])
