"""Scores of changes beside an oracle: the study on the embedded digits, and its table."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from reproduction import tau_study
from reproduction.change_scores import loss_of, theta_scores, weight_scores, with_change
from reproduction.tau_study import Study, group_changes
from reproduction.tau_summary import chance, draw, interval, mean_tau, reliability, to_markdown
from ssl_adapt.adaptation.adaptation import Adaptation
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.adaptation.statistics import statistics_at_rest
from ssl_adapt.recipe import load_recipe

GROUPS = ("branches", "operations", "none edges")
SMALL = {"model.name": "resnet20_bottleneck", "model.args": {"layers": [1, 3], "width": 4}}


@pytest.fixture(scope="module")
def study():
    data = {"data.name": "digits", "data.image_px": 8, "data.batch_size": 16, "data.train_images": 96}
    recipe = load_recipe("supervised_resnet20", {**SMALL, **data, "adapt": None, "train.lr": 0.1, "views.pad_px": 1})
    return Study(recipe, 64)


def float64(study, group):
    """The objective, its changes, and two batches, in float64."""
    objective = study.objective(group)
    objective.network.double().train()
    batches = [[x.double(), y] for x, y in study._views(objective, study.train_set, 2, 0)]
    return objective, group_changes(objective, group, 4), batches


def mean_loss(objective, batches):
    """In float64; slopes are of steps so short, 1e-8, that hardly a ReLU changes its side."""
    with statistics_at_rest(objective.network):
        return sum(float(loss_of(objective, views).detach()) for views in batches) / len(batches)


def test_no_held_out_image_is_trained_on(study):
    whole, _ = tau_study.load_splits(study.recipe.data)
    parts = torch.cat([study.train_set.pixels, study.held_out.pixels])
    assert (len(study.train_set), len(study.held_out)) == (64, 32)
    assert torch.equal(parts.flatten(1).long().unique(dim=0), whole.pixels.flatten(1).long().unique(dim=0))
    assert not (study.train_set.pixels[:, None] == study.held_out.pixels[None]).flatten(2).all(-1).any()


@pytest.mark.parametrize("group", GROUPS)
def test_an_oracle_without_steps_is_the_loss_of_the_changed_network(study, group):
    objective = study.objective(group)
    changes = group_changes(objective, group, 3)
    state = deepcopy(objective.network.state_dict())
    losses = study.oracle(objective, [None, *changes], 0, 0.1)
    assert len(changes) == {"branches": 2, "operations": 3, "none edges": 3}[group]
    assert losses[0] == [study.held_out_loss(objective)] * 2
    for change, found in zip(changes, losses[1:], strict=True):
        other = study.objective(group)
        edges = {spec.name: "original" for spec in other.network.backbone.edge_specs()}
        apply_architecture(other.network.backbone, Architecture("", {}, {**edges, change.edges[0]: change.choice}))
        assert found == pytest.approx([study.held_out_loss(other)] * 2, abs=1e-6)
        assert found != losses[0]
    trained = study.oracle(objective, [None, *changes], 2, 0.1)
    assert all(a != b and a[0] != a[1] for a, b in zip(trained, losses, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in objective.network.state_dict().items())


@pytest.mark.parametrize("group", GROUPS)
def test_theta_s_score_is_the_slope_on_the_way_to_the_change(study, group):
    objective, changes, batches = float64(study, group)
    found = theta_scores(objective, changes, batches)
    for change, score in zip(changes, found, strict=True):
        losses = []
        for share in (-1e-8, 1e-8):
            other = with_change(objective, None)
            adaptation = Adaptation(other.network.backbone.double(), only=change.edges)
            (theta,) = adaptation.theta_parameters()
            theta.data = torch.tensor([0, share, 1 - share], dtype=torch.float64)
            losses.append(mean_loss(other, batches))
        assert score == pytest.approx((losses[1] - losses[0]) / 2e-8, rel=1e-3, abs=1e-6), change


@pytest.mark.parametrize("group", GROUPS[:2])
def test_signed_taylor_is_the_slope_of_shrinking_the_weights(study, group):
    objective, changes, batches = float64(study, group)
    found = weight_scores(objective, changes, batches)
    one = [weight_scores(objective, changes, [views])["squared Taylor"] for views in batches]
    assert found["squared Taylor"] == pytest.approx(np.mean(one, axis=0), rel=1e-5)
    for index, change in enumerate(changes):
        losses, norm = [], 0.0
        for share in (-1e-8, 1e-8):
            other = with_change(objective, None)
            weights = [*other.network.backbone.get_submodule(change.edges[0]).parameters()]
            norm = float(sum(w.detach().square().sum() for w in weights)) ** 0.5
            with torch.no_grad():
                for weight in weights:
                    weight.mul_(1 - share)
            losses.append(mean_loss(other, batches))
        assert found["signed Taylor"][index] == pytest.approx((losses[1] - losses[0]) / 2e-8, rel=1e-3, abs=1e-6)
        assert found["magnitude"][index] == pytest.approx(norm, rel=1e-6)
        assert found["squared Taylor"][index] > 0


def a_row(seed, scores, **values):
    oracle = [[rank + 0.1, rank - 0.1] for rank in range(24)]
    standard = {"network": "vit", "group": "branches", "epochs": 1, "steps": 2, "seed": seed, "oracle": oracle}
    return {**standard, "scores": scores, **values}


def test_taus_of_known_orders():
    up, down = [*range(24)], [*range(24, 0, -1)]
    rows = [a_row(1, {"removal": up, "theta": down, "magnitude": [1] * 24}), a_row(2, {"removal": up, "theta": down})]
    table, tests = (part.splitlines() for part in to_markdown(rows, draws=60).split("\n\n"))
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert cells[3:7] == ["24 + 24", "+1.00", "+1.00 [+1.00, +1.00]", "-1.00 [-1.00, -1.00]"]
    assert cells[7:11] == [""] * 4  # not measured, or equal everywhere
    assert [cell.strip() for cell in tests[2].split("|")[6:10]] == ["+1.00", "+2.00 [+2.00, +2.00]", "0.016", "0.016"]
    swapped = a_row(1, {}, oracle=[[a, -a] for a in range(24)])
    assert reliability([swapped]) == -1


def test_chance_and_interval_are_those_of_kendall_s_tau():
    generator = np.random.default_rng(3)
    oracle = np.arange(24.0)
    score = oracle + generator.normal(size=24) * 8
    assert mean_tau([(score, oracle), (-score, oracle)]) == 0
    assert mean_tau([(score, oracle)]) == kendalltau(score, oracle).statistic
    one, two = (np.std(chance([(score, oracle)] * seeds, 300)) for seeds in (1, 2))
    theory = (2 * (2 * 24 + 5) / (9 * 24 * 23)) ** 0.5
    assert one == pytest.approx(theory, rel=0.15)
    assert two == pytest.approx(theory / 2**0.5, rel=0.15)
    low, high = interval([(score, oracle)], draws=200)
    assert 0 < low < kendalltau(score, oracle).statistic < high < 1
    assert interval([(score, oracle)], [(score, oracle)], draws=20) == (0, 0)


def test_a_study_on_digits_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tau_study.NETWORKS, "resnet", ("simclr_resnet20", SMALL))
    given = ["--data", "digits", "--image-px", "8", "--folder", str(tmp_path), "--images", "128", "--held-out", "64"]
    given += ["--epochs", "1", "--steps", "1", "--batches", "1", "--most", "2"]
    tau_study.main([*given, "--groups", "none edges"])
    tau_study.main(given)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["group"] for row in rows] == ["none edges", "branches", "operations"]
    assert capsys.readouterr().out.splitlines() == lines
    assert len({row["before"] for row in rows}) == 1  # all groups start from the same weights
    names = {"removal", "theta", "squared Taylor", "signed Taylor", "magnitude", "multiply-adds"}
    assert [set(row["scores"]) for row in rows] == [{"removal", "theta"}, names, names]
    for row in rows:
        assert len(row["changes"]) == len(row["oracle"]) == len(row["scores"]["removal"]) > 0
    draw(rows, tmp_path / "figure.svg")
    assert "none edges" in (tmp_path / "figure.svg").read_text()
