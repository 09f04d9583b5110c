"""Fine-tuning: exact at its first step, whatever goes on adapting; what the trained network decides; what rests."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from script_calls import run_command
from short_runs import SUPERVISED, events
from small_networks import small
from torch import Tensor, nn

from ssl_adapt import Architecture, adaptable, apply_architecture, export_timm, load_export, load_recipe
from ssl_adapt.data import Batch, load_image_splits
from ssl_adapt.errors import UserError
from ssl_adapt.recipe import Recipe
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.learner import Learner
from ssl_adapt.training.loop import train_step
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.schedules import plan_stages
from ssl_adapt.training.setting import score_batches
from ssl_adapt.training.start_recipe import start_values
from ssl_adapt.training.start_weights import find_start

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
FAMILIES: dict[str, tuple[int, dict[str, Any], str]] = {  # images, arguments, a branch to remove
    "resnet18": (16, {"layers": [3, 1, 1, 1], "channels": [8, 8, 8, 8]}, "layer1.1"),
    "vit_tiny_patch16_224": (16, VIT, "blocks.1.mlp"),
    "convnext_atto": (32, {"depths": [2, 1, 1, 1], "dims": [8, 8, 8, 8]}, "stages.0.blocks.1"),
    "resnet20_nat": (8, {"channels": 4, "cells": 3}, "cells.0"),
}
PLAIN = [*(argument for argument in SUPERVISED if not argument.startswith("adapt.")), "adapt=null"]
FINETUNE = ["recipe=finetune_resnet20", "data.name=digits", "data.batch_size=16", "train.clip_grad_norm=null"]


def trained(name: str, folder: Path, *, is_adapted: bool) -> nn.Module:
    """A network that is like a trained one: its BatchNorms have seen images; its export is in the folder."""
    px, arguments, branch = FAMILIES[name]
    torch.manual_seed(3)
    network: nn.Module = timm.create_model(
        name, num_classes=10, pretrained_cfg_overlay={"input_size": (3, px, px), "mean": (0.3,) * 3}, **arguments
    )
    if is_adapted:
        if name == "resnet20_nat":
            specs = {spec.name: spec for spec in network.edge_specs()}  # type: ignore[operator]
            choices = {next(n for n, s in specs.items() if s.kind == "none"): "identity"}
        else:
            network = adaptable(network, granularity="branch", model_args=arguments)
            [choice] = [c for s in network.edge_specs() if s.name == branch for c in s.candidates if c != "original"][
                :1
            ]  # type: ignore[operator]
            choices = {branch: choice}
        plain = Architecture.of(network).to_dict()
        apply_architecture(network, Architecture.from_dict({**plain, "edges": {**plain["edges"], **choices}}))
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, px, px))
    export_timm(network, folder, extra_args=arguments)
    return network


def as_finetuned(folder: Path, *arguments: str) -> Recipe:
    """The recipe as `ssl-adapt finetune` completes it."""
    arguments = (*FINETUNE, f"model.weights={folder}", *arguments)
    recipe, given = load_recipe(arguments), {argument.partition("=")[0] for argument in arguments}
    return load_recipe(arguments, start_values(recipe.model, recipe.data, recipe.adapt, given))


def learner_of(recipe: Recipe) -> Learner:
    digits = load_image_splits("digits", image_px=recipe.data.image_px).train
    start = find_start(recipe.model, recipe.adapt)
    recipe = recipe.model_copy(update={"model": start.model})
    objective = create_objective(recipe, digits)
    start.load_into(objective.network.backbone)
    return create_learner(recipe, objective, Accelerator(cpu=True))


def outputs(network: nn.Module, px: int) -> dict[str, Tensor]:
    """In evaluation and in training mode, with the statistics that the latter leaves.

    Without those before edges that are none: a mixed cell computes what a plain one does not read.
    """
    images = torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = {"eval": network.eval()(images), "train": network.train()(images)}
    state = {key.replace("operation.", ""): value for key, value in network.state_dict().items()}  # of a mixed edge
    return {
        **found,
        **{key: value.clone() for key, value in state.items() if "running" in key and "preprocess0" not in key},
    }


@pytest.mark.exactness
@pytest.mark.parametrize(
    ("name", "is_adapted"),
    [
        ("resnet18", True),
        ("resnet20_nat", True),
        ("resnet20_nat", False),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in [*FAMILIES][1:3]),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in [*FAMILIES][:3]),
    ],
)
def test_the_network_that_adapts_on_is_the_loaded_one_to_the_bit(name: str, is_adapted: bool, tmp_path: Path) -> None:
    trained(name, tmp_path / "net", is_adapted=is_adapted)
    px = FAMILIES[name][0]
    own = ["adapt.granularity=null"] if name == "resnet20_nat" else []  # its edges are operations
    ways = (own, [*own, "adapt.score=theta"])
    learners = [learner_of(as_finetuned(tmp_path / "net", *how)) for how in ways]
    mixed = learners[1]
    expected = outputs(load_export(tmp_path / "net").to(memory_format=mixed.memory_format), px)  # type: ignore[call-overload]
    assert mixed.adaptation is not None
    assert len(mixed.adaptation.edges) >= 1
    changed = mixed.adaptation.before.changed
    assert len(changed) == is_adapted
    assert not changed.keys() & {spec.name for spec in mixed.adaptation.edges}
    assert ("none" in {spec.kind for spec in mixed.adaptation.edges}) == (name == "resnet20_nat")
    for learner in learners:
        found = outputs(learner.network.backbone, px)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert not torch.equal(expected["eval"], expected["eval"].flip(0))  # the images count


def test_the_first_step_with_a_score_is_that_of_the_network_that_does_not_adapt(tmp_path: Path) -> None:
    trained("resnet20_nat", tmp_path / "net", is_adapted=True)
    digits = load_image_splits("digits", image_px=8).train
    states = []
    for how in ([], ["adapt=null"]):
        recipe = as_finetuned(tmp_path / "net", "objective.mixup_alpha=0.8", "train.layer_decay=0.7", *how)
        learner = learner_of(recipe)
        stages = plan_stages(steps_per_epoch=8, epochs=30, adapt_epochs=10 * (not how), anneal_epochs=0, max_steps=None)
        torch.manual_seed(1)
        learner.network.train()
        assert digits.labels is not None
        views = learner.views(Batch(digits.images(torch.arange(16)), digits.labels[:16]))
        assert train_step(learner, stages, views, 8) is not None  # past the warm-up's first step
        states.append(learner.network.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# --- the classifier ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "which", "is_kept"), [(10, "keep", True), (10, "new", False), (3, "keep", False), (0, "keep", False)]
)
def test_the_classifier_is_kept_or_new_with_a_word(classes: int, which: str, is_kept: bool, tmp_path: Path) -> None:
    before = small(num_classes=classes).state_dict()
    save_file(before, tmp_path / "a.safetensors")
    given = [f"model.weights={tmp_path / 'a.safetensors'}", f"model.classifier={which}"]
    start = find_start(load_recipe([*PLAIN, *given]).model, None)
    start.load_into(network := small(num_classes=10))
    [(_, said)] = start.rows()
    assert ("their classifier kept (model.classifier=new starts another)" in said) == is_kept
    assert ("not found: fc.weight, fc.bias (new, at random)" in said) == (not is_kept)
    assert torch.equal(network.state_dict()["stem.conv.weight"], before["stem.conv.weight"])
    if classes == 10:
        assert torch.equal(network.state_dict()["fc.weight"], before["fc.weight"]) == is_kept


# --- what the export decides ------------------------------------------------------------------------------


def test_an_export_decides_network_and_images(tmp_path: Path) -> None:
    trained("vit_tiny_patch16_224", tmp_path / "net", is_adapted=False)
    recipe = as_finetuned(tmp_path / "net")
    assert (recipe.model.name, recipe.model.args) == ("vit_tiny_patch16_224", VIT)
    assert (recipe.data.image_px, recipe.data.mean, recipe.data.std) == (16, (0.3,) * 3, (0.5,) * 3)
    given = ["data.image_px=24", "data.std=[1.0, 1.0, 1.0]", "model.args.drop_path_rate=0.1", "adapt=null"]
    recipe = as_finetuned(tmp_path / "net", *given)
    assert recipe.model.args == {**VIT, "img_size": 24, "drop_path_rate": 0.1}
    assert (recipe.data.image_px, recipe.data.std) == (24, (1.0,) * 3)
    assert recipe.adapt is None


def test_a_network_that_was_adapted_keeps_its_granularity(tmp_path: Path) -> None:
    export_timm(timm.create_model("resnet20", width=4, layers=(1, 2), num_classes=0), tmp_path / "plain")
    trained("resnet20_nat", tmp_path / "adapted", is_adapted=True)
    found = []
    for recipe in (as_finetuned(tmp_path / "plain"), as_finetuned(tmp_path / "adapted")):
        assert recipe.adapt is not None
        assert "granularity" not in recipe.model.args
        found.append(recipe.adapt.granularity)
    assert found == ["branch", None]


def test_of_other_weights_the_recipe_says_the_network(tmp_path: Path) -> None:
    def values(*arguments: str) -> dict[str, Any]:
        recipe, given = load_recipe([*FINETUNE, *arguments]), {argument.partition("=")[0] for argument in arguments}
        return start_values(recipe.model, recipe.data, recipe.adapt, given)

    save_file(small().state_dict(), tmp_path / "a.safetensors")
    assert values(f"model.weights={tmp_path / 'a.safetensors'}") == {}
    normalised = {"data.mean": [0.485, 0.456, 0.406], "data.std": [0.229, 0.224, 0.225]}
    assert values("model.pretrained=true", "model.name=resnet18") == {**normalised, "model.args": {}}
    vit = values("model.pretrained=true", "model.name=deit_tiny_patch16_224", "model.args.depth=2", "data.image_px=64")
    assert vit == {**normalised, "model.args": {"img_size": 64, "depth": 2}}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("[]")
    with pytest.raises(UserError, match=r"model.weights=\S+/empty: it has no model.safetensors"):
        values(f"model.weights={tmp_path / 'empty'}")


def test_a_run_is_finetuned_by_the_command_and_adapts_on(tmp_path: Path) -> None:
    export_timm(timm.create_model("resnet20", width=4, layers=(2, 1), num_classes=0), tmp_path / "net")
    short = [
        "data.labelled_share=0.1",
        "data.name=digits",
        "data.batch_size=64",
        "train.max_steps=4",
        "data.image_px=8",
        "run.report=false",
    ]
    adapt = ["adapt.budget_macs=0.8", "adapt.score_batches=2", "views.pad_px=1", f"run.dir={tmp_path / 'fine'}"]
    recipe = ["recipe=finetune_resnet20", f"model.weights={tmp_path / 'net'}"]
    output = run_command("finetune", *recipe, *short, *adapt)
    assert output.code == 0, output.err
    assert "from the trained network: data.mean=[" in output.out
    assert "model.name=resnet20, model.args={'block': 'basic', 'layers': [2, 1], 'width': 4," in output.out
    [fix] = events(tmp_path / "fine", "fix")
    assert len(fix["changed"]) >= 1
    classifier = load_export(tmp_path / "fine/export")
    assert classifier(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_few_images_are_measured_on_as_many_batches_in_further_orders() -> None:
    data = load_recipe([*FINETUNE, "data.image_px=8"]).data
    digits = load_image_splits("digits", image_px=8, train_images=40).train
    stages = plan_stages(steps_per_epoch=2, epochs=4, adapt_epochs=1, anneal_epochs=1, max_steps=None, rounds=2)
    rounds = [
        [batch.images.sum().item() for batch in score_batches(data, digits, torch.device("cpu"), stages, 0, index, 5)]
        for index in range(2)
    ]
    assert [len(sums) for sums in rounds] == [5, 5]
    assert len({*rounds[0], *rounds[1]}) == 10  # no order comes twice
