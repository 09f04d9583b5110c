"""torch.compile: the same numbers, names and resumed runs; and what is refused."""

from pathlib import Path

import pytest
import torch
import torch._inductor.config
from objective_rows import arguments, batch_of, create
from short_runs import assert_same_weights, events, run, weights
from torch._dynamo.testing import CompileCounterWithBackend

from ssl_adapt import load_recipe
from ssl_adapt.data import ImageSet, load_image_splits
from ssl_adapt.training.compilation import check_compiler, without_compiling

COMPILES = "train.compile=true"
TINY = "model.args={width: 4, layers: [1, 1], shortcut: B}"


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_image_splits("digits", image_px=8).train


def test_a_mixed_network_is_traced_as_one_graph_with_the_numbers_of_eager(digits: ImageSet) -> None:
    """Outputs and gradients of weights and theta, to 1e-5 of their norm; the names in the state dict stay."""
    learner = create("simclr", digits, TINY)
    assert learner.adaptation is not None
    images = learner.views(batch_of(digits))[0]
    names, found = list(learner.network.state_dict()), []
    counter = CompileCounterWithBackend("aot_eager")
    learner.network.compile(backend=counter, dynamic=False, fullgraph=True)
    leaves = [*learner.network.parameters(), *learner.adaptation.theta_parameters()]
    for is_eager in (True, False):
        with torch.compiler.set_stance("force_eager" if is_eager else "default"), learner.adaptation.joint_pass():
            outputs = learner.network(images)
            outputs.square().sum().backward()
        assert counter.frame_count == (0 if is_eager else 1)
        found.append([outputs.detach(), *(leaf.grad for leaf in leaves)])
        for leaf in leaves:
            leaf.grad = None
    assert list(learner.network.state_dict()) == names
    assert len(found[0]) > 10
    for eager, compiled in zip(*found, strict=True):
        assert (eager - compiled).norm() <= 1e-5 * eager.norm()
    with without_compiling():
        learner.network(images[:5])
    assert counter.frame_count == 1


def test_a_machine_without_a_compiler_is_told_so_before_the_run() -> None:
    message = r"train.compile=true: torch.compile can't build .*install a C\+\+ compiler"
    with torch._inductor.config.patch({"cpp.cxx": ("no-such",)}), pytest.raises(ValueError, match=message):
        check_compiler(torch.device("cpu"))


def test_paths_dropped_more_and_more_are_refused() -> None:
    with pytest.raises(ValueError, match=r"train.drop_path=0.1: its probability rises at each step"):
        load_recipe(["recipe=supervised_darts", COMPILES, "train.drop_path=0.1"])
    assert load_recipe(["recipe=supervised_darts", COMPILES, "train.drop_path=null"]).train.compile


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_a_compiled_run_equals_its_resumed_one_and_nearly_the_eager_one(name: str, tmp_path: Path) -> None:
    """With kernels of C++: over four steps of weights and theta, the fix, and four of weights."""
    given = arguments(
        name, TINY, "train.max_steps=8", "data.train_images=512", "train.optimizer=sgd", "train.momentum=0.9",
        "train.lr=1e-3", "adapt.theta_lr=1e-3",
    )  # fmt: skip
    whole, parts, eager = (tmp_path / folder for folder in ("whole", "parts", "eager"))
    run(whole, *given, COMPILES, base=[])
    run(parts, *given, COMPILES, "run.stop_after_epochs=1", base=[])
    run(parts, *given, COMPILES, "run.resume=auto", base=[])
    run(eager, *given, base=[])
    assert_same_weights(parts, whole)
    losses, eager_losses = ([event["loss"] for event in events(folder, "epoch")] for folder in (whole, eager))
    assert len(losses) == 2
    assert losses == pytest.approx(eager_losses, rel=1e-3)
    found, expected = weights(whole), weights(eager)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert (found[key] - value).norm() <= 1e-2 * value.norm()
