"""Runs whose changes a score and a budget choose: the export is as cheap as asked, rounds come when due, and resume."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import short_runs
import timm
import torch
from accelerate import Accelerator
from short_runs import SUPERVISED, TINY, assert_same_weights, events, load_checkpoint, timeless_events

from ssl_adapt import Architecture, apply_architecture, load_recipe
from ssl_adapt.adaptation import budget
from ssl_adapt.adaptation.budget import measure_cost
from ssl_adapt.adaptation.cost import count_macs
from ssl_adapt.adaptation.edge import MixedEdge
from ssl_adapt.adaptation.removal import possible_changes
from ssl_adapt.data import load_image_splits
from ssl_adapt.training.choice import choose_changes
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.setting import create_stages

ARGUMENTS = {"width": 4, "layers": [3, 2], "granularity": "branch"}
SHRINK = ["model.args={width: 4, layers: [3, 2]}", "adapt.granularity=branch", "adapt.score_batches=2"]
FEW = ["data.train_images=192", "data.batch_size=64", "knn.k=20"]  # 3 steps an epoch
BASES = {
    "simclr": [*TINY, *FEW],
    "byol": [
        "recipe=byol_resnet20", *TINY[1:], *FEW, "data.name=digits", "train.epochs=2", "adapt.epochs=1",
        "adapt.mode=hard", "adapt.anneal_epochs=0", "objective.projector_hidden=16", "objective.projector_out=8",
        "objective.predictor_hidden=16",
    ],
    "supervised": [*SUPERVISED, *FEW[:2]],
}  # fmt: skip
KEYS = {"macs": "adapt.budget_macs", "parameters": "adapt.budget_parameters", "seconds": "adapt.budget_latency"}
# 15 steps, 12 until the fix
ANNEAL = ["train.epochs=5", "adapt.epochs=2", "adapt.mode=anneal", "adapt.anneal_epochs=2"]
ROUNDS = [*ANNEAL, "adapt.score=removal", "adapt.budget_macs=0.4", "adapt.rounds=3"]


def arguments(objective: str, *more: str) -> list[str]:
    """Those of the base, of which later ones take the place of earlier ones."""
    base = [a for a in BASES[objective] if objective == "supervised" or not a.startswith("views.")]
    given = {argument.partition("=")[0]: argument for argument in (*base, *SHRINK, *more)}
    return [a for a in given.values() if objective != "supervised" or not a.startswith("knn.")]


def run(folder: Path, objective: str, *more: str) -> Path | None:
    return short_runs.run(folder, *arguments(objective, *more), base=[])


def cost(network: torch.nn.Module, unit: Any) -> float:
    return measure_cost(network, torch.zeros(64, 3, 8, 8), unit)


def create(objective: str, *more: str) -> Learner:
    recipe = load_recipe(arguments(objective, *more))
    torch.manual_seed(0)
    images = load_image_splits("digits", image_px=8).train
    return create_learner(recipe, create_objective(recipe, images), Accelerator(cpu=True))


# --- budgets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "score", "unit", "share", "mode"),
    [
        ("simclr", "removal", "macs", 0.6, "hard"),
        ("byol", "removal", "parameters", 0.7, "anneal"),
        ("supervised", "removal", "macs", 0.5, "anneal"),
        ("byol", "taylor", "macs", 0.6, "anneal"),
        ("supervised", "largest", "parameters", 0.6, "hard"),
        ("simclr", "random", "parameters", 0.7, "anneal"),
        ("byol", "random", "macs", 0.6, "hard"),
        ("supervised", "uniform", "macs", 0.5, "hard"),
        ("simclr", "uniform", "parameters", 0.7, "anneal"),
        ("simclr", "theta", "macs", 0.6, "anneal"),
        ("supervised", "theta", "parameters", 0.7, "hard"),
        ("simclr", "removal", "seconds", 0.7, "hard"),
    ],
)
def test_the_export_is_as_cheap_as_the_budget_says(tmp_path, capsys, monkeypatch, objective, score, unit, share, mode):
    if unit == "seconds":  # a stopwatch that other work of the computer does not disturb
        monkeypatch.setattr(budget, "_seconds", lambda model, images: 1e-9 * count_macs(model, images[:1]))
    annealing = ["train.epochs=3", "adapt.mode=anneal", "adapt.anneal_epochs=1"] if mode == "anneal" else []
    export = run(tmp_path / "a", objective, f"adapt.score={score}", f"{KEYS[unit]}={share}", *annealing)
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True)
    plain = timm.create_model("resnet20", num_classes=loaded.num_classes, **ARGUMENTS)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    reached = result["budget"]["reached"]
    assert result["budget"] == {"unit": unit, "share": share, "reached": reached}
    assert cost(loaded, unit) / cost(plain, unit) == pytest.approx(reached, rel=1e-12)
    assert reached <= share
    assert f"budget: {reached:.1%} of the plain network's" in capsys.readouterr().out
    changed = Architecture.of(loaded).changed
    saved = Architecture.from_json((tmp_path / "a" / "architecture.json").read_text())
    [fix], [choice] = events(tmp_path / "a", "fix"), events(tmp_path / "a", "choice")
    assert changed == saved.changed == result["changed"] == fix["changed"] == choice["choices"] != {}
    assert (result["macs"], result["parameters"]) == (cost(loaded, "macs"), cost(loaded, "parameters"))
    if mode == "anneal":
        same = ("feature_std", "rank_me") if objective != "supervised" else ("accuracy_top1", "accuracy_top5")
        [before], [after] = events(tmp_path / "a", "before_fix"), events(tmp_path / "a", "after_fix")
        assert [before[key] for key in same] == [after[key] for key in same]


def test_a_teacher_is_changed_alike_and_annealing_ends_at_the_fixed_network_to_the_bit():
    learner = create("byol", "adapt.score=removal", "adapt.budget_macs=0.5")
    learner.change({"layer1.1": "identity", "layer2.1": "identity"})
    assert learner.adaptation is not None
    learner.adaptation.anneal(0.5)
    views = [torch.randn(4, 3, 8, 8) for _ in range(2)]
    assert learner.train_weights(views, 1e-3, 0.5) is not None
    learner.adaptation.anneal(1.0)
    learner.network.eval()
    before = learner.objective.forward(learner.network, views)
    assert sum(isinstance(module, MixedEdge) for module in learner.network.modules()) == 4
    architecture = learner.fix()
    after = learner.objective.forward(learner.network, views)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    backbones = learner.network.backbone, *learner.network.teacher_backbones
    assert [Architecture.of(backbone) for backbone in backbones] == [architecture, architecture]
    assert list(architecture.changed) == ["layer1.1", "layer2.1"]


@pytest.mark.parametrize("score", ["removal", "random", "uniform"])
def test_edges_that_share_change_together(tmp_path, score):
    model = timm.create_model("resnet20", width=4, layers=(1, 3), num_classes=0)
    groups = [change.edges for change in possible_changes(model.edge_specs(), "forbid", "cell")]
    assert max(map(len, groups)) >= 3
    run(
        tmp_path / "a", "simclr", "model.args={width: 4, layers: [1, 3]}", "adapt.granularity=operation",
        "adapt.sharing=cell", "adapt.shape_change=forbid", f"adapt.score={score}", "adapt.budget_macs=0.7",
    )  # fmt: skip
    [fix] = events(tmp_path / "a", "fix")
    changed = {group: [fix["changed"].get(name) for name in group] for group in groups}
    assert all(len(set(choices)) == 1 for choices in changed.values()), changed
    assert any(len(group) > 1 and choices[0] for group, choices in changed.items())


def test_uniform_adds_no_skips_that_save_nothing():
    learner = create(
        "simclr", "model.name=resnet20_bottleneck", "model.args={width: 4, layers: [2, 2]}", "adapt.score=uniform",
        "adapt.granularity=null", "adapt.budget_macs=0.5",
    )  # fmt: skip
    kinds = {spec.name: spec.kind for spec in learner.network.backbone.edge_specs()}
    chosen = choose(learner, "simclr").changes
    assert chosen
    assert "none" in kinds.values()
    assert {kinds[name] for change in chosen for name in change.edges} == {"operation"}


def choose(learner: Learner, objective: str):
    """The choice of the first round, of one."""
    recipe = load_recipe(arguments(objective))
    images = load_image_splits("digits", image_px=8).train
    stages = create_stages(recipe.data, recipe.train, recipe.adapt, len(images))
    return choose_changes(learner, recipe.data, images, stages, 0, 0)


# --- rounds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run of three rounds that nothing interrupts."""
    folder = tmp_path_factory.mktemp("rounds") / "run"
    run(folder, "byol", *ROUNDS)
    return folder


def test_rounds_come_when_due_and_bring_the_network_to_the_budget_step_by_step(whole):
    choices, rounds, [fix] = events(whole, "choice"), events(whole, "round"), events(whole, "fix")
    assert [(event["step"], event["round"], event["rounds"]) for event in choices] == [(2, 1, 3), (6, 2, 3), (10, 3, 3)]
    assert [event["step"] for event in rounds] == [4, 8]
    assert fix["step"] == 12
    plain = cost(timm.create_model("resnet20", num_classes=0, **ARGUMENTS), "macs")
    shares = [event["macs"] / plain for event in (*rounds, fix)]
    assert all(share <= limit + 1e-9 for share, limit in zip(shares, (0.8, 0.6, 0.4), strict=True))
    assert len(set(shares)) == 3
    made: dict[str, str] = {}
    for choice, end in zip(choices, (*rounds, fix), strict=True):
        assert not made.keys() & choice["choices"].keys()
        assert not any(name in scored for name in made for scored in choice["scores"]), "changed already"
        made |= choice["choices"]
        assert end["changed"] == made
    stages = [event["stage"] for event in events(whole, "epoch")]
    assert stages == ["anneal", "architecture", "architecture", "anneal", "network"]


def test_the_optimiser_remembers_through_all_rounds_what_is_left(whole):
    state = load_checkpoint(whole).state["learner"]
    steps = [int(values["step"]) for values in state["weight_optimizer"]["state"].values()]
    assert set(steps) == {15}
    trained = [n for n in state["network"] if not n.startswith("teacher") and n.endswith((".weight", ".bias"))]
    assert len(steps) == len(trained) > 10


def test_rounds_resume_to_the_bit(tmp_path, whole):
    """Stopped within an annealing, before a choice, between two rounds, and before the last fix."""
    parts = tmp_path / "parts"
    short_runs.run_in_parts(partial(run, parts, "byol", *ROUNDS), (1, 2, 3, 4))
    assert_same_weights(whole, parts)
    assert timeless_events(whole) == timeless_events(parts)


def test_theta_within_a_budget_resumes_to_the_bit_while_it_anneals(tmp_path):
    more = [*ANNEAL, "adapt.budget_macs=0.6"]
    run(tmp_path / "whole", "simclr", *more)
    assert run(tmp_path / "parts", "simclr", *more, "run.stop_after_epochs=3") is None
    run(tmp_path / "parts", "simclr", *more, "run.resume=auto")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert events(tmp_path / "parts", "fix")[0]["changed"]


def test_a_round_that_needs_no_change_measures_none(tmp_path, capsys):
    """One block is more than all rounds but the last ask for together."""
    run(tmp_path / "a", "simclr", *ROUNDS, "adapt.budget_macs=0.79")
    choices, rounds = events(tmp_path / "a", "choice"), events(tmp_path / "a", "round")
    assert [len(choice["choices"]) for choice in choices] == [1, 0, 1]
    assert [choice["passes"] > 0 for choice in choices] == [True, False, True]
    assert rounds[0]["changed"] == rounds[1]["changed"] != {}
    printed = capsys.readouterr().out
    assert "Chosen after step 6 by removal, round 2 of 3: 0 changes" in printed
    assert "\n\n\n" not in printed


# --- without a budget -------------------------------------------------------------------------------------

BOTTLENECK = ["model.name=resnet20_bottleneck", "model.args={width: 4, layers: [1, 2]}", "adapt.granularity=null"]


def test_without_a_budget_only_what_clearly_lowers_the_loss_changes(tmp_path):
    run(tmp_path / "a", "supervised", *BOTTLENECK, "adapt.score=removal", "adapt.score_batches=3", "train.lr=0.01")
    [choice], [fix] = events(tmp_path / "a", "choice"), events(tmp_path / "a", "fix")
    clear = {change for change, (value, error, _) in choice["scores"].items() if value + 2 * error < 0}
    made = {f"{name} -> {kind}" for name, kind in choice["choices"].items()}
    assert made <= clear < choice["scores"].keys()
    kinds = {"skip" if ".null" in name else "operation" for name in choice["choices"]}
    assert kinds == {"skip", "operation"}, "the skips of none edges too"
    assert fix["changed"] == choice["choices"]


def test_where_nothing_lowers_the_loss_nothing_changes(tmp_path, capsys):
    export = run(tmp_path / "a", "supervised", "adapt.score=removal", "adapt.score_batches=3", "train.lr=0.1")
    [choice], [fix] = events(tmp_path / "a", "choice"), events(tmp_path / "a", "fix")
    assert len(choice["scores"]) == 4
    assert all(value + 2 * error >= 0 for value, error, _ in choice["scores"].values())
    assert choice["choices"] == fix["changed"] == {}
    printed = capsys.readouterr().out
    assert "forward passes in" in printed
    assert ": 0 changes" in printed
    assert "0 of 4 edges changed\n\nThe network before and after" in printed, "no empty table"
    assert Architecture.of(timm.create_model(f"local-dir:{export}")).changed == {}


# --- what is measured -------------------------------------------------------------------------------------


def test_a_choice_leaves_nothing_behind_and_is_the_same_again():
    learner = create("simclr", "adapt.score=removal", "adapt.budget_macs=0.6")
    state = {name: value.clone() for name, value in learner.network.state_dict().items()}
    modes = [module.training for module in learner.network.modules()]
    drawn = torch.get_rng_state()
    first, second = (choose(learner, "simclr") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in learner.network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in learner.network.state_dict().items())
    assert list(first.changes) == list(second.changes)
    assert first.passes == 2 * (1 + 4)
    assert [score.value for score in first.scores] == [score.value for score in second.scores]


def test_one_batch_is_enough_within_a_budget(tmp_path):
    run(tmp_path / "a", "simclr", "adapt.score=removal", "adapt.budget_macs=0.6", "adapt.score_batches=1")
    [choice] = events(tmp_path / "a", "choice")
    assert {error for _, error, _ in choice["scores"].values()} == {None}


@pytest.mark.parametrize("score", ["removal", "uniform", "theta"])
def test_a_budget_out_of_reach_is_refused_before_anything_is_made(tmp_path, score):
    network = timm.create_model("resnet20", num_classes=0, **ARGUMENTS)
    plain = cost(network, "macs")
    edges = {spec.name: "identity" for spec in network.edge_specs()}
    apply_architecture(network, Architecture("resnet20", {}, edges))
    shown = math.ceil(1000 * cost(network, "macs") / plain) / 1000
    with pytest.raises(ValueError, match=rf"budget_macs=0\.1 can't be met: with all 4 .* set it to {shown:g} or more"):
        run(tmp_path / "a", "simclr", f"adapt.score={score}", "adapt.budget_macs=0.1")
    assert not (tmp_path / "a").exists()
    run(tmp_path / "a", "simclr", f"adapt.score={score}", f"adapt.budget_macs={shown:g}")
    assert len(events(tmp_path / "a", "fix")[0]["changed"]) == 4
