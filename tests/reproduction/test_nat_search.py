"""NAT's search end to end on the embedded digits: result, both passes, what it refuses, training from scratch."""

import functools
import json
from dataclasses import replace

import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from script_calls import run_script

from reproduction.nat.nat_learner import NatLearner, create_head
from reproduction.nat.search import search
from reproduction.nat.settings import PUBLISHED
from ssl_adapt import load_recipe, pretrain
from ssl_adapt.backbones.genotypes import GENOTYPES, Genotype
from ssl_adapt.data import iterate_batches, load_image_splits
from ssl_adapt.training.objective import create_objective

SMALL = replace(PUBLISHED, epochs=2, batch_size=32, channels=2, cells=3, transforms=4)
SUPERVISED = ["recipe=supervised_resnet20", "data.name=digits", "data.image_px=8", "views.pad_px=1", "adapt=null"]
SMALL_ARGS = "model.args={channels: 4, cells: 3}"
SIMCLR = ["recipe=debug", "data.image_px=8", "adapt=null", SMALL_ARGS]


@functools.cache
def recipe_of(*arguments):
    return load_recipe([*SUPERVISED, *arguments])


@pytest.fixture(scope="module")
def digits():
    train = load_image_splits("digits", image_px=8).train
    return train.subset(torch.arange(160))


def create_learner(recipe, image_set, **settings):
    torch.manual_seed(0)
    form = GENOTYPES["ResBlock"]
    settings = replace(SMALL, **settings)
    objective = create_objective(recipe, image_set, on_meta=True)
    return NatLearner(objective, create_head(recipe.objective), form, settings, torch.device("cpu"))


def batches(image_set, count=2):
    order = torch.arange(count * 32)
    return iterate_batches(image_set, order, batch_size=32, device="cpu", workers=0, drop_last=True)


def is_transform(new, given):
    pairs = [(getattr(new, cell), getattr(given, cell)) for cell in ("normal", "reduction")]
    return all(
        after.concat == before.concat
        and all(
            new_edge[1:] == edge[1:] and new_edge.operation in ("none", "skip_connect", edge.operation)
            for new_edge, edge in zip(after.edges, before.edges, strict=True)
        )
        for after, before in pairs
    )


@pytest.mark.parametrize(
    ("name", "form"), [("resnet20_nat", "ResBlock"), ("mobilenetv2_nat", "MobileNetV2"), ("darts", "DARTS_V2")]
)
def test_a_search(digits, name, form, tmp_path):
    """The result is a transform of the given cells, and plain data; the caller's random state is left alone."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    lines = []
    result = search(recipe_of(f"model.name={name}", SMALL_ARGS), digits, SMALL, tmp_path / "a", report=lines.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.given == GENOTYPES[form]
    assert is_transform(result.genotype, result.given)
    assert len(result.scores) == 4
    assert result.score == max(result.scores)
    assert len(result.history) == len(lines) == 2
    assert lines[1].startswith("epoch 2/2: loss ")
    data = json.loads(result.to_json())
    assert Genotype.from_dict(data["genotype"]) == result.genotype
    assert data["settings"]["channels"] == 2
    assert data["history"][1]["loss"] == result.history[1].loss
    assert 0 < sum(epoch.seconds for epoch in result.history) < result.seconds


def test_the_seed_decides(digits, tmp_path):
    settings = replace(SMALL, epochs=1)
    results = [
        search(recipe_of("model.name=darts", f"seed={seed}"), digits, settings, tmp_path / name)
        for name, seed in (("a", 0), ("again", 0), ("other", 1))
    ]
    assert replace(results[0].history[0], seconds=0) == replace(results[1].history[0], seconds=0)
    found = [(result.genotype, result.scores, result.given_score) for result in results]
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert results[0].history[0].loss != results[2].history[0].loss


def test_a_search_by_contrast(digits, tmp_path):
    """The score is minus the loss, so that a transform that lowers it is rewarded; labels are not needed."""
    recipe = load_recipe([*SIMCLR, "model.name=resnet20_nat"])
    unlabelled = replace(digits, labels=None, classes=())
    result = search(recipe, unlabelled, SMALL, tmp_path / "a")
    assert is_transform(result.genotype, result.given)
    assert all(score < 0 for score in result.scores)
    learner = create_learner(recipe, digits)
    form = GENOTYPES["ResBlock"]
    torch.manual_seed(3)
    (score,) = learner.score([form], batches(digits, 1))
    torch.manual_seed(3)
    views = learner.objective.views(next(batches(digits, 1)))
    assert score == pytest.approx(-learner.objective.loss(learner._outputs(form, views)).item(), rel=1e-6)


def test_weights_and_controller_see_different_images(digits, monkeypatch, tmp_path):
    seen = {"weights": [], "controller": [], "score": []}
    for part, method in (("weights", "train_weights"), ("controller", "train_controller"), ("score", "score")):
        original = getattr(NatLearner, method)

        def watch(learner, *arguments, part=part, original=original):
            *others, given = arguments
            kept = list(given)
            seen[part].append(torch.cat([batch.indices for batch in kept]).tolist())
            return original(learner, *others, iter(kept))

        monkeypatch.setattr(NatLearner, method, watch)
    search(recipe_of("model.name=resnet20_nat", SMALL_ARGS), digits, SMALL, tmp_path / "a")
    sets = {part: set().union(*orders) for part, orders in seen.items()}
    assert [len(orders) for orders in seen.values()] == [2, 2, 1]
    assert len(sets["weights"]) == 64  # 40 % of 160
    assert sets["controller"] == sets["score"]
    assert len(sets["controller"]) == 96
    assert not sets["weights"] & sets["controller"]
    assert seen["weights"][0] != seen["weights"][1]


def count_nones(genotype):
    return sum(edge.operation == "none" for cell in (genotype.normal, genotype.reduction) for edge in cell.edges)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_controller_learns_what_is_rewarded(digits, sign, monkeypatch):
    """What scores a genotype is replaced by a count that rises, or falls, with its none edges."""
    monkeypatch.setattr(NatLearner, "_score", lambda _, genotype, inputs: sign * count_nones(genotype) / 16)
    learner = create_learner(recipe_of("model.name=resnet20_nat"), digits)
    form = GENOTYPES["ResBlock"]

    def mean_nones():
        with torch.no_grad():
            return sum(count_nones(learner.controller.draw(form).genotype) for _ in range(50)) / 50

    before = mean_nones()
    for _ in range(50):
        list(learner.train_controller(batches(digits)))
    assert sign * (mean_nones() - before) > 2


def test_without_rewards_the_entropy_rises(digits, monkeypatch):
    monkeypatch.setattr(NatLearner, "_score", lambda *_: 0.0)
    learner = create_learner(recipe_of("model.name=resnet20_nat"), digits)
    for parameter in learner.controller.action.parameters():
        parameter.data *= 10  # far from uniform
    entropies = [list(learner.train_controller(batches(digits)))[-1][1] for _ in range(50)]
    assert sum(entropies[-10:]) > 1.1 * sum(entropies[:10])


def test_each_pass_trains_its_own(digits):
    learner = create_learner(recipe_of("model.name=resnet20_nat"), digits)

    def state():
        return [
            torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
            for model in (learner.supernet, learner.controller)
        ]

    start = state()
    list(learner.train_weights(batches(digits)))
    after_weights = state()
    list(learner.train_controller(batches(digits)))
    after_controller = state()
    assert not torch.equal(start[0], after_weights[0])
    assert torch.equal(start[1], after_weights[1])
    assert torch.equal(after_weights[0], after_controller[0])
    assert not torch.equal(after_weights[1], after_controller[1])


@pytest.mark.parametrize("rule", ["released", "moving_average"])
def test_baseline_rules(digits, rule):
    learner = create_learner(recipe_of("model.name=resnet20_nat"), digits, baseline=rule)
    learner.baseline = expected = 0.4
    for _ in range(3):
        ((reward, _),) = learner.train_controller(batches(digits, 1))
        expected = 0.99 * expected + 0.01 * (reward - expected if rule == "released" else reward)
        assert learner.baseline == pytest.approx(expected, abs=1e-12)


def test_the_weights_learn(digits, monkeypatch):
    """Of one genotype, where the search has a new one for each batch: those need more steps than a test has."""
    genotype = GENOTYPES["NAT_ResBlock"]
    monkeypatch.setattr("reproduction.nat.nat_learner.draw_genotype", lambda form, operations: genotype)
    learner = create_learner(recipe_of("views.flip_p=0.0"), digits, channels=8)
    (before,) = learner.score([genotype], batches(digits))
    losses = [sum(learner.train_weights(batches(digits, 5))) / 5 for _ in range(6)]
    (after,) = learner.score([genotype], batches(digits))
    assert losses[-1] < losses[0] - 1
    assert before < 0.3
    assert after > 0.6


def test_what_was_found_trains_from_scratch(tmp_path):
    """As a file and as plain values; the export holds the genotype itself, and needs no file."""
    genotype = GENOTYPES["NAT_ResBlock"]
    path = tmp_path / "found.json"
    path.write_text(genotype.to_json())
    exports = []
    for number, given in enumerate((str(path), json.dumps(genotype.to_dict()))):
        arguments = ["model.args.channels=4", "model.args.cells=3", f"model.args.genotype={given}", "train.max_steps=2"]
        recipe = recipe_of("model.name=resnet20_nat", *arguments, f"run.dir={tmp_path / str(number)}")
        exports.append(pretrain(recipe))
        AcceleratorState._reset_state(reset_partial_state=True)
    path.unlink()
    for export in exports:
        loaded = timm.create_model(f"local-dir:{export}", pretrained=True)
        assert Genotype.from_dict(loaded.model_args["genotype"]) == genotype
    assert len(exports) == 2


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["model.name=proxyless_mobile_cifar"], SMALL, "can't transform 'proxyless_mobile_cifar', since"),
        (["model.name=resnet20"], SMALL, "can't transform 'resnet20', since"),
        (["objective.mixup_alpha=0.4"], SMALL, r"objective\.mixup_alpha=0\.4: .*set it to 0"),
        (["model.name=darts"], replace(SMALL, batch_size=65), "batch_size=65 is more than the 64 images"),
    ],
)
def test_what_cannot_be_searched_is_refused(digits, arguments, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        search(recipe_of(*arguments), digits, settings, tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1}, {"weight_share": 1.0}, {"baseline": "none"}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be "):
        replace(PUBLISHED, **wrong)


def test_the_script_writes_what_it_finds(tmp_path):
    found, log = tmp_path / "found.json", tmp_path / "log.json"
    arguments = [*SUPERVISED, "model.name=resnet20_nat", "epochs=1", "channels=2", "cells=3"]
    output = run_script(
        *arguments, "batch_size=256", "transforms=2", "self_loops=true", f"genotype={found}", f"json={log}",
        script="nat_search.py",
    )  # fmt: skip
    assert output.code == 0, output.err
    assert "epoch 1/1: loss " in output.out
    assert f"model.args.genotype={found} adapt=null" in output.out
    data = json.loads(log.read_text())
    assert data["genotype"] == json.loads(found.read_text())
    assert data["settings"]["self_loops"] is True
    recipe = recipe_of("model.name=resnet20_nat", f"model.args.genotype={found}")
    assert timm.create_model(recipe.model.name, **recipe.model.args)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
