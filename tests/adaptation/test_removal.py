"""Scores of changes, by true removal, and the choice that a budget asks for."""

import math
from itertools import permutations

import pytest
import timm
import torch
import torch.nn.functional as F
from small_networks import BOTTLENECKS, images, small
from torch import nn

import ssl_adapt
from ssl_adapt.adaptation.architecture import Architecture, apply_architecture
from ssl_adapt.adaptation.budget import choose_uniform, choose_within, measure_cost, savings
from ssl_adapt.adaptation.cost import count_macs
from ssl_adapt.adaptation.edge import CHOICES
from ssl_adapt.adaptation.removal import Change, possible_changes, ranked, removal_scores

LABELS = torch.tensor([0, 1, 2, 0])


def loss_of(model):
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1])


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, 8, 8, generator=generator), LABELS) for _ in range(count)]


def removed(name, arguments, change):
    """The network built anew with the change as its architecture, in training mode."""
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments)
    edges = {spec.name: "original" for spec in model.edge_specs()}
    apply_architecture(model, Architecture("", {}, {**edges, **dict.fromkeys(change.edges, change.choice)}))
    return model


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet20", {"width": 4, "layers": (1, 2), "granularity": "branch"}),
        ("resnet20", {"width": 4, "layers": (1, 1)}),
        ("resnet20_bottleneck", BOTTLENECKS),
        ("darts", {"channels": 4, "cells": 3}),
    ],
)
def test_removal_is_the_loss_of_the_network_without_it(name, arguments, mixed):
    """Less the loss with it, on the same batches; of none edges it is the loss with the skip there."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **arguments)
    specs = model.edge_specs()
    changes = possible_changes(specs, "pad")[::5]
    if mixed:
        ssl_adapt.Adaptation(model)
    data = batches(2)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    scores = removal_scores(model, changes, loss_of(model), data, specs=specs)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [score.change for score in scores] == changes
    for score in scores:
        other = removed(name, {"num_classes": 3, **arguments}, score.change)
        difference = [float(loss_of(other)(b)) - float(loss_of(model)(b)) for b in data]
        assert score.value == pytest.approx(sum(difference) / 2, abs=2e-6), score.change
        assert score.error == pytest.approx(abs(difference[0] - difference[1]) / 2, abs=2e-6)


def test_random_draws_are_the_same_with_and_without_the_change():
    """Dropout would otherwise drown what a change does; torch's own random state stays as it was."""
    model = small(num_classes=3, drop_rate=0.5, granularity="branch")
    nothing = Change(("layer1.0",), "original")
    state = torch.random.get_rng_state()
    (score,) = removal_scores(model, [nothing], loss_of(model), batches(3), specs=model.edge_specs())
    assert (score.value, score.error, score.batches) == (0, 0, 3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_single_batch_has_no_error_and_none_is_refused():
    model = small(num_classes=3, granularity="branch")
    changes, specs = possible_changes(model.edge_specs()), model.edge_specs()
    assert math.isnan(removal_scores(model, changes, loss_of(model), batches(1), specs=specs)[0].error)
    with pytest.raises(ValueError, match="batches is empty"):
        removal_scores(model, changes, loss_of(model), [], specs=specs)


def test_possible_changes_leave_out_what_is_no_identity():
    """Where a tensor changes its shape nothing plausible stands in, unless padding is asked for."""
    specs = small("resnet20").edge_specs()
    names = {change.edges[0] for change in possible_changes(specs)}
    assert names == {spec.name for spec in specs if not spec.changes_shape}
    everything = possible_changes(specs, "pad")
    allowed = sum(s.allows(c, "pad") for s in specs for c in CHOICES if c not in ("original", s.kind))
    assert len(everything) == allowed


def test_order_of_rules():
    a, b, c, d = changes = [Change((name,), "identity") for name in "abcd"]
    values = {a: 0.2, b: -0.1, c: 0.3, d: 0.05}
    assert ranked("removal", changes, values=values) == [b, d, a, c]
    assert ranked("removal", changes, values=values, saved={a: 1, b: 1, c: 10, d: 0}) == [b, c, a, d]
    largest = {tuple(ranked("largest", changes, saved={a: 1, b: 2, c: 10, d: 2}, seed=seed)) for seed in range(20)}
    assert largest == {(c, b, d, a), (c, d, b, a)}
    assert ranked("random", changes, seed=1) == ranked("random", changes, seed=1)
    assert {tuple(ranked("random", changes, seed=seed)) for seed in range(200)} == {*permutations(changes)}
    with pytest.raises(ValueError, match="no order by 'removal' without values"):
        ranked("removal", changes)


@pytest.mark.parametrize("unit", ["macs", "parameters"])
def test_savings_are_what_the_counts_say(unit):
    model = small(num_classes=3, layers=(2, 2), granularity="branch")
    specs, changes = model.edge_specs(), possible_changes(model.edge_specs())
    saved = savings(model, changes, specs, images(1), unit)
    whole = measure_cost(model, images(1), unit)
    for change in changes:
        torch.manual_seed(0)
        other = removed("resnet20", {"width": 4, "layers": (2, 2), "num_classes": 3, "granularity": "branch"}, change)
        assert saved[change] == whole - measure_cost(other, images(1), unit) > 0


def test_a_choice_meets_the_budget_and_takes_no_more_than_it_needs():
    model = small(num_classes=3, layers=(3, 3), granularity="branch")
    specs, changes = model.edge_specs(), possible_changes(model.edge_specs())
    whole = count_macs(model, images(1))
    for share in (1.0, 0.8, 0.5):

        def fits(network, share=share):
            return count_macs(network, images(1)) <= share * whole

        chosen = choose_within(model, changes, specs, fits, images())
        saved = savings(model, changes, specs, images(1), "macs")
        total = sum(saved[change] for change in chosen)
        assert whole - total <= share * whole
        assert all(whole - total + saved[change] > share * whole for change in chosen)
        uniform = choose_uniform(model, changes, specs, fits, images())
        assert len(uniform) == len(chosen)
    assert len(changes) == 5
    assert Architecture.of(model).changed == {}
    with pytest.raises(ValueError, match="can't be met: 5 changes"):
        choose_within(model, changes, specs, lambda _: False, images())
    with pytest.raises(ValueError, match="can't be met: 5 changes"):
        choose_uniform(model, changes, specs, lambda _: False, images())


def test_what_makes_the_loss_no_number_comes_last():
    first, broken, second = (Change((name,), "none") for name in "abc")
    values = {first: 0.2, broken: math.nan, second: 0.1}
    assert ranked("removal", [first, broken, second], values=values) == [second, first, broken]


def test_a_classifier_that_starts_at_zero_hides_no_change():
    """It gives the same for all images, whatever changes."""
    model = small(num_classes=3, layers=(3, 3), granularity="branch")
    torch.nn.init.zeros_(model.get_classifier().weight)
    specs, changes = model.edge_specs(), possible_changes(model.edge_specs())
    assert choose_within(model, changes, specs, None, images()) == changes
    assert choose_uniform(model, changes, specs, lambda m: count_macs(m, images(1)) < 1e5, images())


def test_changes_that_would_blind_the_network_are_passed_over():
    """Without any attention, a vit's class token never sees the image."""
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = ssl_adapt.adaptable(
        timm.create_model("vit_tiny_patch16_224", **arguments), ["blocks.*.attn"], model_args=arguments
    )
    changes = [Change((spec.name,), "none") for spec in model.edge_specs()]
    pixels = torch.randn(2, 3, 16, 16)
    whole = measure_cost(model, pixels, "macs")
    with pytest.raises(ValueError, match="can't be met: 1 changes"):
        choose_within(model, changes, model.edge_specs(), lambda m: measure_cost(m, pixels, "macs") < whole / 2, pixels)


def test_latency_is_measured():
    assert 0 < measure_cost(nn.Linear(4, 4), torch.zeros(2, 4), "seconds") < 1
