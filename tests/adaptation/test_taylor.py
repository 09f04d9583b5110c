"""The squared Taylor score: what the formula says, and what it leaves as it was."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_networks import BOTTLENECKS, small

from ssl_adapt.adaptation.removal import Change, possible_changes, ranked
from ssl_adapt.adaptation.taylor import takes_weights, taylor_scores


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(6) % 3) for _ in range(count)
    ]


def backward_of(model):
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1]).backward()


@pytest.mark.parametrize("granularity", ["branch", "op"])
def test_it_is_the_sum_of_squared_first_order_effects_of_single_weights(granularity):
    """Each weight's own effect, w dL/dw, by a difference of losses in which that weight alone is scaled."""
    torch.manual_seed(0)
    model = small(num_classes=3, width=2, granularity=granularity).double().train()
    changes, data = possible_changes(model.edge_specs())[:2], batches(2)
    scores = taylor_scores(model, changes, backward_of(model), data)
    for change, score in zip(changes, scores, strict=True):
        assert (score.change, score.batches) == (change, 2)
        sums = []
        for batch in data:
            total = 0.0
            for weight in model.get_submodule(change.edges[0]).parameters():
                for index in range(weight.numel()):
                    total += effect(model, weight, index, batch) ** 2
            sums.append(total)
        assert score.value == pytest.approx(sum(sums) / 2, rel=1e-4)
        assert score.error == pytest.approx(abs(sums[0] - sums[1]) / 2, rel=1e-4)


@torch.no_grad()
def effect(model, weight, index, batch):
    """Of scaling one weight; steps so short that no ReLU changes its side."""
    flat, step, losses = weight.view(-1), 1e-6, []
    before = float(flat[index])
    for sign in (1, -1):
        flat[index] = before * (1 + sign * step)
        losses.append(float(F.cross_entropy(model(batch[0]), batch[1])))
    flat[index] = before
    return (losses[0] - losses[1]) / (2 * step)


def test_nothing_is_left_behind_and_dropout_draws_the_same_again():
    torch.manual_seed(0)
    model = small(num_classes=3, granularity="branch", drop_rate=0.5).double().train()
    changes = possible_changes(model.edge_specs())
    state, drawn = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    first, second = (taylor_scores(model, changes, backward_of(model), batches(2)) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_what_takes_no_weights_away_is_refused():
    model = small("resnet20_bottleneck", **BOTTLENECKS, num_classes=3).double()
    changes = possible_changes(model.edge_specs())
    empty = [change for change in changes if not takes_weights(model, change)]
    assert 0 < len(empty) < len(changes)
    assert all("null" in change.edges[0] or "shortcut" in change.edges[0] for change in empty)
    with pytest.raises(ValueError, match=r"takes no weights away, .*: leave it out, or measure it by removal"):
        taylor_scores(model, empty, backward_of(model), batches(1))
    with pytest.raises(ValueError, match="batches is empty"):
        taylor_scores(model, changes, backward_of(model), [])


def test_the_order_is_by_score_over_what_is_saved():
    a, b, c = changes = [Change((name,), "identity") for name in "abc"]
    values = {a: 4e-6, b: math.nan, c: 6e-6}
    assert ranked("taylor", changes, values=values) == [a, c, b]
    assert ranked("taylor", changes, values=values, saved={a: 1, b: 1, c: 2}) == [c, a, b]
