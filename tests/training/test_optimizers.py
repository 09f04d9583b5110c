"""The weights' optimisers are timm's: those of torch to the bit, LARS and LAMB, and layers with rates of their own."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from short_runs import TINY, assert_same_weights, run
from torch import Tensor, nn

from ssl_adapt import Adaptation, Architecture, apply_architecture
from ssl_adapt.adaptation.edge import ShapeChange
from ssl_adapt.objectives.base import ProjectedNetwork, create_mlp
from ssl_adapt.recipe import TrainSection, load_recipe
from ssl_adapt.training.optimizers import create_weight_optimizer, keep_only, layer_rates, set_lr, weight_groups

CPU = torch.device("cpu")
LARS = ["train.optimizer=lars", "train.momentum=0.9", "train.exclude_norm_and_bias=true", "train.weight_decay=0.01"]


def train_section(*arguments: str) -> TrainSection:
    return load_recipe(["recipe=debug", *arguments]).train


def create_network() -> ProjectedNetwork:
    torch.manual_seed(0)
    backbone = timm.create_model("resnet20", width=4, layers=[1, 2], num_classes=0)
    return ProjectedNetwork(backbone, create_mlp(8, 8, 4))


def loss_of(network: nn.Module, seed: int) -> Tensor:
    torch.manual_seed(seed)
    output: Tensor = network(torch.randn(4, 3, 8, 8))
    return output.square().sum()


@pytest.mark.exactness
@pytest.mark.parametrize(
    ("arguments", "kind", "values"),
    [
        (["train.optimizer=adam"], torch.optim.Adam, {}),
        (["train.optimizer=adamw"], torch.optim.AdamW, {}),
        (["train.optimizer=sgd", "train.momentum=0.9"], torch.optim.SGD, {"momentum": 0.9}),
        (["train.optimizer=sgd", "train.momentum=0"], torch.optim.SGD, {"momentum": 0.0}),
    ],
)
def test_the_optimisers_of_torch_to_the_bit(
    arguments: list[str], kind: type[torch.optim.Optimizer], values: dict[str, Any]
) -> None:
    found, expected = create_network(), create_network()
    train = train_section(*arguments, "train.weight_decay=0.1")
    optimizers = [
        create_weight_optimizer(found, train, CPU),
        kind(expected.parameters(), lr=train.lr, weight_decay=0.1, **values),  # type: ignore[call-arg]
    ]
    assert type(optimizers[0]) is kind
    for step in range(4):
        for network, optimizer in zip((found, expected), optimizers, strict=True):
            set_lr(optimizer, 0.1 / (step + 1))
            loss_of(network, step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    assert all(map(torch.equal, found.parameters(), expected.parameters()))
    assert not any(map(torch.equal, found.parameters(), create_network().parameters()))


def test_lars_scales_the_steps_of_weights_and_leaves_norms_and_biases_alone() -> None:
    network = create_network()
    optimizer = create_weight_optimizer(network, train_section(*LARS), CPU)
    set_lr(optimizer, 0.5)
    loss_of(network, 0).backward()  # type: ignore[no-untyped-call]
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    optimizer.step()
    scaled = 0
    for name, weight in network.named_parameters():
        step, old = weight.grad, before[name]
        assert step is not None
        if weight.ndim > 1:
            decayed = step + 0.01 * old
            step = decayed * (0.001 * old.norm() / (step.norm() + 0.01 * old.norm()))
            scaled += 1
        torch.testing.assert_close(weight.detach(), old - 0.5 * step, rtol=1e-4, atol=1e-6)
    assert scaled == 9
    assert len(before) - scaled > 9


def test_lamb_clips_where_the_recipe_says_and_nowhere_else() -> None:
    arguments = ["train.optimizer=lamb", "train.exclude_norm_and_bias=true"]
    networks = [create_network(), create_network()]
    for network, size in zip(networks, (1.0, 1000.0), strict=True):
        optimizer = create_weight_optimizer(network, train_section(*arguments), CPU)
        for step in range(3):  # a norm clipped to 1 would change the first step's share in the averages
            (loss_of(network, 0) * (size if step == 0 else 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert optimizer.defaults["max_grad_norm"] is None
    assert not any(map(torch.equal, *(network.parameters() for network in networks)))


@pytest.mark.parametrize("mixed", [False, True])
def test_layers_learn_at_rates_of_their_own(mixed: bool) -> None:
    network = create_network()
    layers = ["stem", "layer1.0", "layer2.0", "layer2.1"]
    rates_of = layer_rates(network.backbone, 0.5)
    if mixed:
        Adaptation(network.backbone, shape_change="project")
    optimizer = create_weight_optimizer(network, train_section(), CPU, rates_of)
    set_lr(optimizer, 0.1)
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in network.named_parameters():
        [depth] = [i for i, layer in enumerate(layers) if name.startswith(f"backbone.{layer}.")] or [len(layers) - 1]
        assert rates.pop(id(weight)) == pytest.approx(0.1 * 0.5 ** (len(layers) - 1 - depth)), name
    assert rates == {}


def test_norms_biases_and_what_the_model_excepts_do_not_decay() -> None:
    backbone = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=12, depth=2, num_classes=0)
    network = ProjectedNetwork(backbone, create_mlp(12, 8, 4))
    for rates in ({}, layer_rates(backbone, 0.9)):
        groups = weight_groups(network, train_section("train.exclude_norm_and_bias=true"), rates)
        decays = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
        assert len(decays) == len(list(network.parameters())) == sum(len(group["params"]) for group in groups)
        for name, weight in network.named_parameters():
            excepted = weight.ndim == 1 or name in ("backbone.pos_embed", "backbone.cls_token")
            assert decays[id(weight)] == (0.0 if excepted else 1e-4), name
    [group] = weight_groups(network, train_section(), {})
    assert all(map(torch.equal, group["params"], network.parameters())), "all in one group, in their order"


@pytest.mark.parametrize("shape_change", ["pad", "project"])
def test_the_groups_of_a_fixed_network_come_in_the_order_that_the_fix_left(shape_change: ShapeChange) -> None:
    """A run that goes on after its fix restores its optimiser by that order."""
    train = train_section("train.exclude_norm_and_bias=true")
    fixed, loaded = create_network(), create_network()
    rates = layer_rates(fixed.backbone, 0.5)
    adaptation = Adaptation(fixed.backbone, shape_change=shape_change, on_dead="allow")
    optimizer = create_weight_optimizer(fixed, train, CPU, rates)
    count = len(optimizer.param_groups)
    with torch.no_grad():
        for name, theta in adaptation.theta.items():
            theta[1] = 2.0 if name.startswith(("layer1", "layer2.1", "layer2.0.conv1")) else 0.0
    architecture: Architecture = adaptation.fix()
    assert len(architecture.changed) > 3
    keep_only(optimizer, fixed.parameters())
    apply_architecture(loaded.backbone, architecture)
    names = {id(weight): name for network in (fixed, loaded) for name, weight in network.named_parameters()}
    found, expected = (
        [[names[id(weight)] for weight in group["params"]] for group in groups]
        for groups in (optimizer.param_groups, create_weight_optimizer(loaded, train, CPU, rates).param_groups)
    )
    assert found == expected
    assert len(found) < count, "some groups are gone"


@pytest.mark.exactness
def test_a_run_with_lars_and_rates_of_layers_resumes_to_the_bit(tmp_path: Path) -> None:
    arguments = [
        *LARS, "train.lr=1.0", "train.layer_decay=0.7", "train.epochs=3", "adapt.theta_lr=0.5",
        "data.batch_size=64", "data.train_images=256",
    ]  # fmt: skip
    run(tmp_path / "whole", *arguments, base=TINY)
    changed = Architecture.from_json((tmp_path / "whole" / "architecture.json").read_text()).changed
    assert any(name.endswith(("conv1", "conv2")) for name in changed)
    run(tmp_path / "parts", *arguments, "run.stop_after_epochs=2", base=TINY)
    run(tmp_path / "parts", *arguments, "run.resume=auto", base=TINY)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
