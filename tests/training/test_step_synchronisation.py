"""A pass over a batch waits for the device once."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from processes_run import create, images
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_adapt.training.learner import Learner

SMALL = ["data.image_px=8", "model.args={width: 4, layers: [1, 2]}"]
HARD = ["adapt.mode=hard", "adapt.anneal_epochs=0"]
READING_OPS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero"}
READING_CALLS = {"tolist", "cpu", "numpy", "__array__"}  # of which no operation is seen where a tensor is on the CPU


class Reads(TorchDispatchMode):
    """Counts what brings a value to the host, but for the step counters of optimisers, which live there."""

    def __init__(self, counters: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.counters = {id(counter) for counter in counters}
        self.seen: Counter[str] = Counter()
        self.calls = Calls(self.seen)

    def __enter__(self) -> "Reads":
        super().__enter__()
        self.calls.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.calls.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._schema.name in READING_OPS and id(args[0]) not in self.counters:
            self.seen[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.__name__ in READING_CALLS:
            self.seen[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def reads(learner: Learner, step: Callable[[], object]) -> int:
    step()  # makes the optimisers' states
    optimizers = [optimizer for optimizer in (learner.weight_optimizer, learner.theta_optimizer) if optimizer]
    counters = [state["step"] for optimizer in optimizers for state in optimizer.state.values() if "step" in state]
    with Reads(counters) as found:
        step()
    return found.seen.total()


@pytest.mark.parametrize("clip", ["null", "0.1"])
@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg", "supervised"])
def test_a_pass_waits_for_the_device_once(name: str, clip: str) -> None:
    recipe = {"simclr": "debug", "supervised": "supervised_resnet20"}.get(name, f"{name}_resnet20")
    learner = create([f"recipe={recipe}", *SMALL, *HARD, f"train.clip_grad_norm={clip}"])
    views: Sequence[torch.Tensor] = images(0, 8)
    if name == "supervised":
        views = (views[0], torch.arange(24) % 10)
    for accumulate in (1, 2):
        learner.train = learner.train.model_copy(update={"accumulate": accumulate})
        assert reads(learner, lambda: learner.train_weights(views, 0.1, 0.5)) == 1
        assert reads(learner, lambda: learner.train_theta(views)) == 1
    assert reads(learner, lambda: float(views[0].sum())) == 1, "what is counted is seen"
