"""How much memory a process of a run needs, estimated from a step on a few images."""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_adapt.data import Batch
from ssl_adapt.processes import process_count
from ssl_adapt.runs.checkpoint import random_state, set_random_state
from ssl_adapt.training.compilation import without_compiling
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.recomputation import buffers_kept

FEW, MORE = 2, 4  # images, of which BatchNorm needs two
STATES = {"sgd": 1, "lars": 1, "adam": 2, "adamw": 2, "lamb": 2}  # numbers that the optimiser keeps for a weight


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the peak of a step, those of the program itself aside.

    Attributes:
        weights: of the network, its teacher and the average, buffers included.
        gradients: of the weights.
        optimizer: its state.
        activations: the views, what a pass keeps for its backward pass, and what both compute in between.
        images: that a pass takes at once.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    images: int

    @property
    def total(self) -> int:
        """The sum, a little more than is needed at once where gradients come as activations go."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = (
            ("activations", self.activations), ("weights", self.weights), ("gradients", self.gradients),
            ("optimiser", self.optimizer),
        )  # fmt: skip
        listed = ", ".join(f"{name} {short_bytes(count)}" for name, count in parts)
        whose = "each process" if process_count() > 1 else "the process"
        return f"about {short_bytes(self.total)} in {whose}, {self.images:,} images at once: {listed}"


def estimate_memory(learner: Learner, batch_size: int) -> Memory:
    """The memory of a step of the weights, within a tenth of what was measured on a CPU.

    Two passes on the run's device, of 2 and of 4 images, show what a pass needs whatever its images are and what each
    image adds. Not in it: what the loss itself needs, the kernels' own work space, the images of a set that is held in
    memory, and what torch.compile saves. All is left as it was.

    Args:
        learner: not yet trained, or as it goes on.
        batch_size: images in a batch, over all processes.

    Distributed: collective, as BatchNorm may take its statistics over all processes.
    """
    share = -(-batch_size // process_count())
    part = -(-share // learner.train.accumulate)
    weights = [weight for weight in learner.network.parameters() if weight.requires_grad]
    state = random_state()
    for weight in weights:
        weight.grad = torch.zeros_like(weight)  # theirs are counted once, and not among the rest
    try:
        (few, view), (more, _) = (_measure_pass(learner, count) for count in (FEW, MORE))
    finally:
        set_random_state(state)
        for weight in weights:
            weight.grad = None
    networks = [learner.network, *((learner.average.backbone, *learner.average.heads) if learner.average else ())]
    trained = sum(weight.nbytes for weight in weights)
    states = STATES[learner.train.optimizer] if learner.train.momentum != 0 else 0
    return Memory(
        weights=sum(map(_bytes_of, networks)),
        gradients=trained,
        optimizer=states * trained,
        activations=round(few + (more - few) / (MORE - FEW) * (part - FEW)) + view * share,
        images=part,
    )


def short_bytes(count: int) -> str:
    """The number in MiB or, from 1000 of them on, in GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 1000 * 2**20 else f"{count / 2**20:,.1f} MiB"


def _measure_pass(learner: Learner, count: int) -> tuple[int, int]:
    """Bytes at the peak of a pass of so many images, beside weights and gradients, and those of an image's views."""
    device, px = learner.accelerator.device, learner.image_px
    numbers = torch.zeros(count, dtype=torch.int64, device=device)
    views = learner.views(Batch(torch.zeros(count, 3, px, px, dtype=torch.uint8, device=device), numbers, numbers))
    network: Any = learner.network
    held = [*network.parameters(), *network.buffers(), *(weight.grad for weight in network.parameters()), *views]
    with buffers_kept(network), without_compiling(), _LiveBytes(held) as live:
        with learner.accelerator.autocast():
            outputs = learner.objective.forward(network, views)
        torch.autograd.backward([output.float().sum() for output in outputs if output.requires_grad])
    return live.peak, sum(view.nbytes for view in views) // count


def _bytes_of(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


class _LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations make inside the block: those that live, and most at once as `peak`.

    Args:
        held: tensors that were there before, and do not count.
    """

    def __init__(self, held: Iterable[Tensor | None]) -> None:
        super().__init__()
        self.peak = self._live = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in held if tensor is not None}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._live += size
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size
