"""Stages and learning rates are pure functions of the step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler

from ssl_adapt.training.schedules import lr_at_step, plan_stages, steps_to_change


def plan(**kwargs):
    return plan_stages(
        **{"steps_per_epoch": 10, "epochs": 20, "adapt_epochs": 4, "anneal_epochs": 2, "max_steps": None, **kwargs}
    )


def test_stages_in_steps():
    stages = plan()
    assert (stages.architecture_steps, stages.anneal_steps, stages.fix_step, stages.total_steps) == (40, 20, 60, 200)
    names = [stages.name_at_step(step) for step in (0, 39, 40, 59, 60, 199)]
    assert names == ["architecture", "architecture", "anneal", "anneal", "network", "network"]
    assert plan(adapt_epochs=0, anneal_epochs=0).name_at_step(0) == "network"


@given(
    steps=st.integers(1, 50), adapt=st.integers(0, 30), anneal=st.integers(0, 30), network=st.integers(0, 30),
    most=st.integers(1, 5000),
)  # fmt: skip
def test_max_steps_shrinks_in_proportion(steps, adapt, anneal, network, most):
    epochs = adapt + anneal + network
    stage_count = sum(length > 0 for length in (adapt, anneal, network))
    if epochs == 0:
        return
    arguments = {"steps_per_epoch": steps, "epochs": epochs, "adapt_epochs": adapt, "anneal_epochs": anneal}
    full = steps * epochs
    if most < min(full, stage_count):
        with pytest.raises(ValueError, match=f"train.max_steps={most} is too short for {stage_count} stages"):
            plan_stages(**arguments, max_steps=most)
        return
    stages = plan_stages(**arguments, max_steps=most)
    assert stages.total_steps == min(most, full)
    shares = [
        (adapt, stages.architecture_steps),
        (anneal, stages.anneal_steps),
        (network, stages.total_steps - stages.fix_step),
    ]
    for length, shrunk in shares:
        assert (shrunk > 0) == (length > 0)
        assert abs(shrunk - length * steps * stages.total_steps / full) <= 2
    assert stages.epochs == math.ceil(stages.total_steps / steps)


@given(
    steps=st.integers(1, 50), adapt=st.integers(1, 30), anneal=st.integers(0, 30), network=st.integers(0, 30),
    rounds=st.integers(1, 12),
)  # fmt: skip
def test_rounds_share_out_the_steps_until_the_fix(steps, adapt, anneal, network, rounds):
    stages = plan_stages(
        steps_per_epoch=steps, epochs=adapt + anneal + network, adapt_epochs=adapt, anneal_epochs=anneal,
        max_steps=None, rounds=rounds,
    )  # fmt: skip
    all_steps = range(stages.total_steps + 1)
    ends = [step for step in all_steps if stages.is_fixed_before(step)]
    choices = [step for step in all_steps if stages.round_chosen_before(step) is not None]
    assert [stages.round_chosen_before(step) for step in choices] == list(range(stages.rounds))
    assert len(ends) == len(choices) == stages.rounds == min(rounds, stages.anneal_steps or stages.architecture_steps)
    assert ends[-1] == stages.fix_step
    assert max(b - a for a, b in zip([0, *ends], ends, strict=False)) <= stages.fix_step // stages.rounds + 1
    for before, choice, end in zip([0, *ends], choices, ends, strict=False):
        assert before <= choice <= end
        assert (choice < end) == (anneal > 0)
        shares = [stages.annealed(step) for step in range(before, end)]
        assert all(share is None for share in shares[: choice - before])
        annealed = [share for share in shares if share is not None]
        assert annealed == sorted(set(annealed))
        assert annealed[-1:] == ([1.0] if anneal else [])
        assert len(annealed) == end - choice == stages.anneal_steps // stages.rounds
    assert all(stages.annealed(step) is None for step in range(stages.fix_step, stages.total_steps))
    names = [stages.name_at_step(step) for step in range(stages.total_steps)]
    assert names.count("network") == network * steps
    if rounds == 1:
        assert (choices, ends) == ([stages.architecture_steps], [stages.fix_step])
        assert names == adapt * steps * ["architecture"] + anneal * steps * ["anneal"] + network * steps * ["network"]


def test_two_steps_run_both_stages_of_the_reference_recipe():
    stages = plan_stages(steps_per_epoch=97, epochs=500, adapt_epochs=50, anneal_epochs=0, max_steps=2)
    assert (stages.architecture_steps, stages.total_steps) == (1, 2)


def test_learning_rates():
    at = {"lr": 0.5, "warmup_steps": 10, "total_steps": 110}
    assert [lr_at_step(s, schedule="cosine", **at) for s in (0, 4, 9)] == pytest.approx([0.05, 0.25, 0.5])
    assert lr_at_step(10, schedule="cosine", **at) == 0.5
    assert lr_at_step(60, schedule="cosine", **at) == pytest.approx(0.25)
    assert lr_at_step(109, schedule="cosine", **at) < 0.001
    assert {lr_at_step(s, schedule="constant", **at) for s in (10, 60, 109)} == {0.5}


@pytest.mark.parametrize("warmup", [0, 13])
def test_the_cosine_is_that_of_timm(warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.3)
    theirs = CosineLRScheduler(optimizer, 200 - warmup, warmup_t=warmup, warmup_prefix=True, t_in_epochs=False)
    seen = 0
    for step in range(warmup, 200):
        theirs.step_update(step)
        ours = lr_at_step(step, lr=0.3, schedule="cosine", warmup_steps=warmup, total_steps=200)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours, rel=1e-12)
        seen += ours < 0.3
    assert seen == 199 - warmup


@pytest.mark.parametrize(
    ("kind", "none_way", "steps"),
    [
        ("operation", 1.0, 1667),
        ("identity", 1.0, 3334),
        ("none", 1.0, 3334),
        ("none", -0.1, 334),
        ("none", 0.0, 1),
        ("none", 0.3, 1000),
    ],
)
def test_steps_until_an_edge_can_change(kind, none_way, steps):
    """With lr 3e-4 about 1,700 opposed steps to the identity, about 3,300 to none."""
    assert steps_to_change(kind, theta_lr=3e-4, none_way=none_way) == steps
