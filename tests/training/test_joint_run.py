"""Theta's gradients from the weights' own pass, in the steps of a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import short_runs
import torch
from accelerate import Accelerator
from short_runs import TINY, assert_same_weights, events
from torch import Tensor

from ssl_adapt import load_recipe
from ssl_adapt.data import load_image_splits
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.objective import create_objective

SMALL = ["data.image_px=8", "model.args={width: 4, layers: [1, 2]}", "adapt.theta_lr=0.1"]
HARD = ["adapt.mode=hard", "adapt.anneal_epochs=0"]
BASES = {
    "simclr": ["recipe=debug"],
    "byol": ["recipe=byol_resnet20", *HARD],
    "vicreg": ["recipe=vicreg_resnet20", *HARD],
    "supervised": ["recipe=supervised_resnet20"],
}
every_objective = pytest.mark.parametrize("name", BASES)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(dtype)


def create(name: str, *more: str) -> Learner:
    given = [*BASES[name], *SMALL, *more]
    recipe = load_recipe([a for a in given if "adapt=null" not in more or not a.startswith("adapt.")])
    torch.manual_seed(0)
    images = load_image_splits("digits", image_px=8).train
    return create_learner(recipe, create_objective(recipe, images), Accelerator(cpu=True))


def views(name: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 12, 3, 8, 8, generator=generator)
    return [first, torch.arange(12) % 10] if name == "supervised" else [first, second]


def thetas(learner: Learner) -> Tensor:
    assert learner.adaptation is not None
    return torch.stack([*learner.adaptation.theta_parameters()]).detach().clone()


def assert_close(found: Learner, expected: Learner) -> None:
    pairs = zip(found.network.parameters(), expected.network.parameters(), strict=True)
    differences = [(a - b).abs().max().item() for a, b in pairs]
    assert len(differences) > 10
    assert max(differences) < 1e-12


@pytest.mark.exactness
@every_objective
def test_a_joint_step_is_a_plain_step_and_a_step_of_theta_from_the_same_weights(name):
    joint, plain, alternating = create(name), create(name, "adapt=null"), create(name)
    assert torch.equal(thetas(joint), thetas(alternating))
    before = thetas(joint)
    loss = joint.train_weights(views(name), 1e-2, 0.5, joint=True)
    assert loss == plain.train_weights(views(name), 1e-2, 0.5)
    assert_close(joint, plain)
    assert alternating.train_theta(views(name)) == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(thetas(joint), thetas(alternating), rtol=0, atol=1e-12)
    moved = thetas(joint) != before
    assert moved.any(dim=1).sum() > 4
    assert not any(p.grad is not None for p in (*joint.adaptation.theta_parameters(), *joint.network.parameters()))


@pytest.mark.exactness
@every_objective
def test_so_it_is_at_any_theta(name):
    """The weights' step of the alternation, with theta's gradients of the weights before it."""
    learners = create(name), create(name), create(name)
    start = torch.tensor([0.1, 0.2, 0.9]) + 0.2 * torch.randn(len(thetas(learners[0])), 3)
    for learner in learners:
        for theta, value in zip(learner.adaptation.theta_parameters(), start, strict=True):
            theta.data = value.clone()
    joint, weights, theta_alone = learners
    joint.train_weights(views(name), 1e-2, 0.5, joint=True)
    weights.train_weights(views(name), 1e-2, 0.5)
    theta_alone.train_theta(views(name))
    assert_close(joint, weights)
    assert torch.equal(thetas(weights), start)
    torch.testing.assert_close(thetas(joint), thetas(theta_alone), rtol=0, atol=1e-9)


@every_objective
def test_a_batch_that_is_not_finite_moves_neither(name):
    learner = create(name)
    before, at_start = {n: v.clone() for n, v in learner.network.state_dict().items()}, thetas(learner)
    broken = views(name)
    broken[0][0, 0, 0, 0] = torch.nan
    assert learner.train_weights(broken, 0.1, 0.5, joint=True) is None
    assert all(torch.equal(before[n], value) for n, value in learner.network.state_dict().items())
    assert torch.equal(thetas(learner), at_start)
    assert learner.train_weights(views(name), 0.1, 0.5, joint=True) is not None
    assert thetas(learner).isfinite().all()
    assert not torch.equal(thetas(learner), at_start)


def test_a_gradient_of_theta_that_is_not_finite_moves_neither():
    learner = create("simclr")
    before, at_start = {n: v.clone() for n, v in learner.network.state_dict().items()}, thetas(learner)
    theta = learner.adaptation.theta_parameters()[0].requires_grad_()
    hook = theta.register_hook(lambda gradient: gradient * torch.nan)
    assert learner.train_weights(views("simclr"), 0.1, 0.5, joint=True) is None
    assert all(torch.equal(before[n], value) for n, value in learner.network.state_dict().items())
    assert torch.equal(thetas(learner), at_start)
    hook.remove()
    assert learner.train_weights(views("simclr"), 0.1, 0.5, joint=True) is not None


FEW = ["data.train_images=192", "data.batch_size=64", "knn.k=20"]  # 3 steps an epoch


def run(folder: Path, *more: str) -> Path | None:
    torch.set_default_dtype(torch.float32)
    return short_runs.run(folder, *FEW, "train.epochs=3", "adapt.epochs=2", "adapt.theta_lr=0.3", *more, base=TINY)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_run_resumes_to_the_bit(tmp_path, stop):
    joint = ["adapt.theta_pass=joint"]
    run(tmp_path / "whole", *joint)
    assert run(tmp_path / "parts", *joint, f"run.stop_after_epochs={stop}") is None
    run(tmp_path / "parts", *joint, "run.resume=auto")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    seen = [[event["theta"] for event in events(tmp_path / name, "theta")] for name in ("whole", "parts")]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 6


def test_a_run_says_that_both_move_in_one_pass(tmp_path, capsys):
    run(tmp_path / "a", "adapt.theta_pass=joint")
    assert "6 steps of weights and theta in one pass -> fix -> 3 steps of weights" in capsys.readouterr().out
    first = events(tmp_path / "a", "theta")[0]
    assert any(theta != [0.0, 0.0, 1.0] for theta in first["theta"].values())
