"""Keys that change how a step is computed and not what it computes, with every objective; and averaged weights."""

from pathlib import Path

import pytest
import torch
from objective_rows import ROWS, arguments, batch_of, create, every_objective
from short_runs import assert_same_weights, events, load_checkpoint, run, weights

from ssl_adapt import Architecture
from ssl_adapt.data import ImageSet, load_image_splits
from ssl_adapt.training.learner import Learner

RECOMPUTES = "train.checkpoint_activations=true"
AVERAGES = "train.ema_decay=0.9"
DROPS = "model.args={width: 4, layers: [1, 2], drop_rate: 0.5}"


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_image_splits("digits", image_px=8).train


def take_steps(learner: Learner, digits: ImageSet, count: int = 2) -> list[float | None]:
    """Steps of the weights and of theta on one batch; their losses."""
    torch.manual_seed(0)
    views = learner.views(batch_of(digits))
    losses = []
    for _ in range(count):
        losses += [learner.train_weights(views, 1e-2, 0.5), learner.train_theta(views)]
    return losses


def state_of(learner: Learner) -> dict[str, torch.Tensor]:
    assert learner.adaptation is not None
    return {**learner.network.state_dict(), **learner.adaptation.theta}


# --- activations that are computed again ------------------------------------------------------------------


@pytest.mark.exactness
@pytest.mark.parametrize(("name", "accumulate"), [*((name, 1) for name in ROWS), ("byol", 3)])
def test_activations_computed_again_change_nothing(name: str, accumulate: int, digits: ImageSet) -> None:
    """Weights, BatchNorm's statistics, theta, losses and random numbers after two steps of each: to the bit."""
    found = []
    for more in ([], [RECOMPUTES]):
        learner = create(name, digits, f"train.accumulate={accumulate}", DROPS, *more)
        assert learner.network.backbone.grad_checkpointing == bool(more)
        found.append((take_steps(learner, digits), state_of(learner), torch.get_rng_state()))
    (losses, state, draws), (again, state_again, draws_again) = found
    assert losses == again
    assert list(state) == list(state_again)
    assert [key for key, value in state.items() if not torch.equal(value, state_again[key])] == []
    assert torch.equal(draws, draws_again)


# --- averaged weights -------------------------------------------------------------------------------------


@pytest.mark.exactness
@every_objective
def test_the_average_is_that_of_the_steps_before_and_after_the_fix(name: str, digits: ImageSet) -> None:
    """Of the backbone and of the head behind it; numbers of batches are those of the network."""
    learner = create(name, digits, AVERAGES)
    average, network, expected = learner.average, learner.network, {}
    assert average is not None
    assert learner.evaluated is average
    torch.manual_seed(0)
    views = learner.views(batch_of(digits))
    for step in range(1, 9):
        if step == 5:
            with torch.no_grad():
                for index, theta in enumerate(learner.adaptation.theta_parameters()):
                    theta.copy_(torch.eye(3)[1 + index % 2])
            architecture = learner.fix()
            assert architecture.changed
            assert Architecture.of(average.backbone) == architecture
        assert learner.train_weights(views, 1e-2, 0.5) is not None
        decay = min(0.9, 1 - step ** (-2 / 3))
        for part, module in enumerate((network.backbone, *network.heads[:1])):
            for mixed_key, value in module.state_dict().items():
                key = mixed_key.replace(".operation.", ".")
                before = expected.get((part, key), torch.zeros_like(value))
                is_mean = value.is_floating_point()
                expected[part, key] = before * decay + value * (1 - decay) if is_mean else value.clone()
    found = {
        (part, key): value
        for part, module in enumerate((average.backbone, *average.heads))
        for key, value in module.state_dict().items()
    }
    kept = {key: expected[key] for key in found}  # the fix took weights away
    assert len(found) > 10
    torch.testing.assert_close(found, kept, rtol=1e-5, atol=1e-6)
    assert not any(weight.requires_grad for weight in average.backbone.parameters())


def test_the_average_follows_theta_and_rests_in_a_step_that_is_not_finite(digits: ImageSet) -> None:
    learner = create("simclr", digits, AVERAGES)
    average = learner.average
    assert average is not None
    take_steps(learner, digits)
    before = {key: value.clone() for key, value in average.backbone.state_dict().items()}
    views = learner.views(batch_of(digits))
    outputs = average.backbone(views[0])
    views[1][0, 0, 0, 0] = torch.nan
    assert learner.train_weights(views, 0.1, 0.5) is None
    assert all(torch.equal(value, before[key]) for key, value in average.backbone.state_dict().items())
    assert torch.equal(average.backbone(views[0]), outputs)
    with torch.no_grad():
        for theta in learner.adaptation.theta_parameters():
            theta.mul_(0.5)
    assert not torch.allclose(average.backbone(views[0]), outputs)


def test_a_run_exports_the_average_and_resumes_exactly(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given = arguments("simclr", AVERAGES, RECOMPUTES, "data.train_images=512")
    run(whole, *given, base=[])
    run(parts, *given, "run.stop_after_epochs=1", base=[])
    run(parts, *given, "run.resume=auto", base=[])
    assert_same_weights(parts, whole)
    saved = load_checkpoint(whole).state["learner"]
    average = {key.removeprefix("0."): value for key, value in saved["average"]["weights"].items()}
    exported = weights(whole)
    assert len(exported) > 10
    assert all(torch.equal(value, average[key]) for key, value in exported.items())
    trained = saved["network"]
    assert not all(torch.equal(value, trained[f"backbone.{key}"]) for key, value in exported.items())
    [result], [unaveraged] = events(whole, "result"), events(whole, "unaveraged")
    assert result["feature_std"] != unaveraged["feature_std"]
