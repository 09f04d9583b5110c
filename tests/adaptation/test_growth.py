"""Branches that open at zero: found in any network, without effect when they open, and scored by their gradient."""

import pytest
import timm
import torch
import torch.nn.functional as F
from small_networks import images, small

import ssl_adapt
from ssl_adapt.adaptation.growth import Branch, growth_scores, last_layers, opened, zero
from ssl_adapt.adaptation.removal import Change, make_change, possible_changes

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (4, 8, 8, 8), "patch_size": 1, "num_classes": 3}


def network(name):
    torch.manual_seed(0)
    if name == "resnet20":
        return small(num_classes=3, layers=(2, 2), granularity="branch")
    arguments = VIT if name.startswith("vit") else CONVNEXT
    model = timm.create_model(name, **arguments)
    return ssl_adapt.adaptable(model, granularity="branch", model_args=arguments)


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(count)]


def backward_of(model):
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1]).backward()


def take_out(model, every=1):
    """Every so many branches, taken out, by edge."""
    specs = {spec.name: spec for spec in model.edge_specs()}
    layers, branches = last_layers(model, possible_changes([*specs.values()]), images()), {}
    for change in [*layers][::every]:
        name = change.edges[0]
        branches[name] = Branch(model.get_submodule(name), layers[change])
        zero(branches[name].operation.get_submodule(layers[change]))
        make_change(model, specs, change)
    return branches


@pytest.mark.parametrize(
    ("name", "last"),
    [("resnet20", {"conv2.bn"}), ("vit_tiny_patch16_224", {"proj", "fc2"}), ("convnext_atto", {"mlp.fc2"})],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_branch_opens_without_any_effect(name, last, training):
    model = network(name).train(training)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    changes = possible_changes(model.edge_specs())
    layers = last_layers(model, changes, images())
    assert [*layers] == changes
    assert len(changes) >= 3
    assert {*layers.values()} == last
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    branches = take_out(model, every=2)
    before = model(images())
    with opened(model, branches):
        assert torch.equal(model(images()), before)
        assert set(branches) == {c.edges[0] for c in changes[::2]}
        assert all(model.get_submodule(n) is branch.operation for n, branch in branches.items())
    assert torch.equal(model(images()), before)


def test_what_became_the_identity_can_t_come_back_without_an_effect():
    model = small(num_classes=3)
    changes = possible_changes(model.edge_specs())
    layers = last_layers(model, changes, images())
    assert {*layers} == {c for c in changes if c.choice == "none" and "conv" in c.edges[0]}
    assert any(change.choice == "identity" for change in changes)
    assert {*layers.values()} == {"bn"}


@pytest.mark.parametrize("name", ["resnet20", "vit_tiny_patch16_224"])
def test_a_score_is_the_squared_gradient_of_the_branch_opened_alone(name):
    model, data = network(name).train(), batches(2)
    branches = take_out(model)
    scores = growth_scores(model, branches, backward_of(model), data)
    assert [score.change for score in scores] == [Change((n,), "original") for n in branches]
    for score in scores:
        edge = score.change.edges[0]
        alone = {edge: branches[edge]}
        with opened(model, alone):
            for batch in data:
                (F.cross_entropy(model(batch[0]), batch[1]) / len(data)).backward()
            squares = {n: w.grad.square().sum() for n, w in branches[edge].operation.named_parameters()}
            model.zero_grad()
        assert score.value == pytest.approx(float(sum(squares.values())), rel=1e-4)
        moving = {n for n, square in squares.items() if square > 0}
        assert moving == {f"{branches[edge].last}.weight", f"{branches[edge].last}.bias"}, "the others rest at first"


def test_a_measurement_leaves_nothing_behind():
    model = network("resnet20").train()
    branches = take_out(model, every=2)
    everything = [*model.parameters(), *(w for branch in branches.values() for w in branch.operation.parameters())]
    state, drawn = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    inner = {n: v.clone() for b in branches.values() for n, v in b.operation.state_dict().items()}
    first, second = (growth_scores(model, branches, backward_of(model), batches(2)) for _ in range(2))
    assert [score.value for score in first] == [score.value for score in second]
    assert all(score.value > 0 for score in first)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(v, inner[n]) for b in [*branches.values()][-1:] for n, v in b.operation.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in everything)
    with pytest.raises(ValueError, match="batches is empty"):
        growth_scores(model, branches, backward_of(model), [])
