"""Runs that start with a part of their network and open branches: nothing changes at once, costs, optimiser, resume."""

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
import short_runs
import timm
import torch
from accelerate import Accelerator
from short_runs import SUPERVISED, TINY, assert_same_weights, events, timeless_events

from ssl_adapt import Architecture, load_recipe
from ssl_adapt.adaptation.budget import measure_cost
from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.data import load_image_splits
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.grow import choose_growth, open_branches
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import create_stages

GROW = [
    "model.args={width: 4, layers: [3, 3]}", "data.train_images=192", "data.batch_size=64", "adapt.granularity=branch",
    "adapt.score=gradmax", "adapt.start_share=0.4", "adapt.score_batches=2", "adapt.rounds=3", "train.epochs=4",
    "adapt.epochs=3", "adapt.mode=hard", "adapt.anneal_epochs=0",
]  # fmt: skip
BASES = {
    "simclr": [*TINY[:2], "knn.every_epochs=0", "knn.k=20"],
    "byol": [
        "recipe=byol_resnet20", TINY[1], "data.name=digits", "knn.every_epochs=0", "knn.k=20",
        "objective.projector_hidden=16", "objective.projector_out=8", "objective.predictor_hidden=16",
    ],
    "supervised": [a for a in SUPERVISED if not a.startswith(("adapt.theta", "data.batch", "train.epochs"))],
}  # fmt: skip
LAMB = ["train.optimizer=lamb", "train.momentum=null", "train.exclude_norm_and_bias=true"]
BLOCKS = ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2"]


def arguments(objective: str, *more: str) -> list[str]:
    """Later ones take the place of earlier ones."""
    return [*{a.partition("=")[0]: a for a in (*BASES[objective], *GROW, *more)}.values()]


def run(folder: Path, objective: str, *more: str) -> Path | None:
    return short_runs.run(folder, *arguments(objective, *more), base=[])


def create(objective: str, *more: str) -> Learner:
    recipe = load_recipe(arguments(objective, *more))
    torch.manual_seed(0)
    images = load_image_splits("digits", image_px=8).train
    return create_learner(recipe, create_objective(recipe, images), Accelerator(cpu=True))


def macs(network: torch.nn.Module) -> float:
    return measure_cost(network, torch.zeros(1, 3, 8, 8), "macs")


@pytest.mark.parametrize(
    ("objective", "more", "end"),
    [
        pytest.param("simclr", (), 1.0, marks=pytest.mark.slow),
        ("supervised", ("adapt.score=random", "adapt.budget_macs=0.8"), 0.8),
        pytest.param("byol", ("adapt.score=uniform",), 1.0, marks=pytest.mark.slow),
    ],
)
def test_a_run_grows_from_its_share_to_its_budget(tmp_path, capsys, objective, more, end):
    export = run(tmp_path / "a", objective, *more)
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True)
    plain = macs(timm.create_model("resnet20", width=4, layers=[3, 3], num_classes=loaded.num_classes))
    choices, rounds, [fix] = (events(tmp_path / "a", name) for name in ("choice", "round", "fix"))
    assert [event["step"] for event in choices] == [3, 6, 9]
    shares = [event["macs"] / plain for event in (*rounds, fix)]
    limits = [0.4 + (end - 0.4) * part / 3 for part in (1, 2, 3)]
    assert all(share <= limit + 1e-9 for share, limit in zip(shares, limits, strict=True))
    assert shares == sorted(shares)
    assert shares[-1] > end - 0.2, "a block is a fifth of the network at most"
    grown = [name for choice in choices for name in choice["choices"]]
    assert len(set(grown)) == len(grown) >= 2
    left = set(BLOCKS) - set(grown) & fix["changed"].keys()
    assert Architecture.of(loaded).changed.keys() == fix["changed"].keys() <= left
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["budget"]["reached"] == shares[-1] == macs(loaded) / plain
    assert result["changed"] == fix["changed"]
    printed = capsys.readouterr().out
    assert f"grown from at most 40% of the multiply-adds to {end:.0%}" in printed.replace("\n", " ")
    [(before, after)] = re.findall(r"\n *multiply-adds +([\d,]+) +([\d,]+)", printed)
    last = rounds[-1]["macs"], fix["macs"]
    assert (before, after) == tuple(f"{cost:,}" for cost in last)
    assert last[0] < last[1]
    is_scored = "adapt.score=random" not in more and "adapt.score=uniform" not in more
    assert [bool(choice["scores"]) and choice["passes"] == 2 for choice in choices] == [is_scored] * 3


@pytest.mark.parametrize(("objective", "more"), [("simclr", ()), ("byol", LAMB)])
def test_outputs_and_optimiser_are_the_same_when_branches_open(objective, more):
    """Lamb counts its steps by group of weights."""
    learner = create(objective, *more)
    views = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert learner.train_weights(views, 1e-2, 0.5) is not None
    closed = [*learner.branches]
    assert len(closed) >= 2
    before = [outputs(learner, views, training) for training in (True, False)]
    old = {weight: deepcopy(learner.weight_optimizer.state[weight]) for weight in weights(learner)}
    steps = [group.get("step") for group in learner.weight_optimizer.param_groups]
    last = learner.branches[closed[0]].last_weights()
    open_branches(learner, closed[:-1])
    after = [outputs(learner, views, training) for training in (True, False)]
    assert all(torch.equal(a, b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True))
    learner.network.train()
    assert [*learner.branches] == closed[-1:]
    assert [group.get("step") for group in learner.weight_optimizer.param_groups] == steps
    assert steps == [None if objective == "simclr" else 1] * len(steps) != []
    now = learner.weight_optimizer.state
    assert {*now} == {*old}, "what is new has no past"
    assert all(torch.equal(now[weight][key], value) for weight, state in old.items() for key, value in state.items())
    assert not any(weight.any() for weight in last)
    assert learner.train_weights(views, 1e-2, 0.6) is not None
    assert any(weight.any() for weight in last)
    backbones = learner.network.backbone, *learner.network.teacher_backbones
    assert [Architecture.of(backbone).changed.keys() for backbone in backbones] == [{closed[-1]}] * len(backbones)


def outputs(learner: Learner, views: list[torch.Tensor], training: bool) -> tuple[torch.Tensor, ...]:
    learner.network.train(training)
    with statistics_at_rest(learner.network):
        return learner.objective.forward(learner.network, views)


def weights(learner: Learner) -> list[torch.nn.Parameter]:
    return [weight for weight in learner.network.parameters() if weight.requires_grad]


def test_a_choice_leaves_the_network_as_it_was():
    learner = create("simclr")
    recipe = load_recipe(arguments("simclr"))
    images = load_image_splits("digits", image_px=8).train
    stages = create_stages(recipe.data, recipe.train, recipe.adapt, len(images))
    state = {name: value.clone() for name, value in learner.network.state_dict().items()}
    drawn = torch.get_rng_state()
    first, second = (choose_growth(learner, recipe.data, images, stages, 0, 0) for _ in range(2))
    assert [str(change) for change in first.changes] == [str(change) for change in second.changes] != []
    assert [score.value for score in first.scores] == [score.value for score in second.scores]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [*learner.network.state_dict()] == [*state]
    assert all(torch.equal(value, state[name]) for name, value in learner.network.state_dict().items())


def test_the_last_round_opens_every_branch_that_is_left():
    """0.3 and three thirds of 0.7 are a little less than 1 in floating point."""
    given = "adapt.start_share=0.3", "adapt.score=random"
    learner, recipe = create("simclr", *given), load_recipe(arguments("simclr", *given))
    images = load_image_splits("digits", image_px=8).train
    stages = create_stages(recipe.data, recipe.train, recipe.adapt, len(images))
    for index in range(stages.rounds):
        assert learner.branches
        choice = choose_growth(learner, recipe.data, images, stages, 0, index)
        open_branches(learner, [change.edges[0] for change in choice.changes])
    assert not learner.branches
    assert not Architecture.of(learner.network.backbone).changed


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("growing") / "run"
    run(folder, "byol", *LAMB)
    return folder


@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_that_grows_resumes_to_the_bit(tmp_path, whole, stop):
    """Before a round opens anything, between rounds, and before the last."""
    parts = tmp_path / "parts"
    assert run(parts, "byol", *LAMB, f"run.stop_after_epochs={stop}") is None
    run(parts, "byol", *LAMB, "run.resume=auto")
    assert_same_weights(whole, parts)
    assert timeless_events(whole) == timeless_events(parts)


def test_a_start_out_of_reach_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"start_share=0\.05 can't be met: 5 branches can open at zero"):
        run(tmp_path / "a", "simclr", "adapt.start_share=0.05")
    with pytest.raises(ValueError, match=r"a network grows from random weights"):
        run(tmp_path / "a", "simclr", f"model.weights={tmp_path}/a.pt")
    assert not (tmp_path / "a").exists()
