"""Epochs at the start in which the backbone rests and its classifier trains alone."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from short_runs import SUPERVISED, assert_same_weights, load_checkpoint, run, weights
from small_networks import small

from ssl_adapt import load_recipe
from ssl_adapt.data import load_image_splits
from ssl_adapt.errors import UserError
from ssl_adapt.training.create_learner import create_learner
from ssl_adapt.training.objective import create_objective
from ssl_adapt.training.optimizers import at_rest

PLAIN = [*(argument for argument in SUPERVISED if not argument.startswith("adapt.")), "adapt=null"]
FROZEN = ["run.accuracy_every_epochs=0", "data.train_images=256", "train.epochs=2", "train.freeze_epochs=1"]


def test_in_the_first_epochs_the_classifier_trains_alone(tmp_path: Path) -> None:
    before = small(num_classes=10)
    save_file(before.state_dict(), tmp_path / "a.safetensors")
    given = [*FROZEN, f"model.weights={tmp_path / 'a.safetensors'}", "train.weight_decay=0.1"]
    run(tmp_path / "parts", *given, "run.stop_after_epochs=1", base=PLAIN)
    during = load_checkpoint(tmp_path / "parts").state["learner"]
    trained = {
        name for name, w in before.named_parameters() if not torch.equal(w, during["network"][f"backbone.{name}"])
    }
    assert trained == {"fc.weight", "fc.bias"}
    assert len(during["weight_optimizer"]["state"]) == 2  # no momentum of what rests
    run(tmp_path / "parts", *given, "run.resume=auto", base=PLAIN)
    assert not any(torch.equal(w, weights(tmp_path / "parts")[name]) for name, w in before.named_parameters())
    run(tmp_path / "whole", *given, base=PLAIN)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.exactness
@pytest.mark.parametrize(
    "more",
    [
        ["train.accumulate=2"],
        ["adapt.epochs=1", "adapt.theta_pass=joint", "adapt.mode=hard", "adapt.anneal_epochs=0"],
        [
            "model.args={width: 4, layers: [1, 2], drop_rate: 0.5}",
            "train.checkpoint_activations=true",
            "train.ema_decay=0.9",
        ],
    ],
)  # fmt: skip
def test_a_step_at_rest_is_one_whose_backbone_gradients_are_thrown_away(more: list[str]) -> None:
    """Weights, theta, BatchNorm's statistics, the average, loss and norm, to the bit."""
    is_joint = "adapt.theta_pass=joint" in more
    given = {a.partition("=")[0]: a for a in (*(SUPERVISED if is_joint else PLAIN), *more)}
    found = []
    for is_at_rest in (True, False):
        recipe = load_recipe([*given.values()])
        torch.manual_seed(0)
        digits = load_image_splits("digits", image_px=8).train
        learner = create_learner(recipe, create_objective(recipe, digits), Accelerator(cpu=True))
        backbone = learner.network.backbone
        classifier = {id(weight) for weight in backbone.get_classifier().parameters()}
        if not is_at_rest:  # as soon as they are there
            for weight in backbone.parameters():
                if id(weight) not in classifier:
                    weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
        before = {name: weight.clone() for name, weight in backbone.named_parameters()}
        views = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8)]
        losses = [learner.train_weights(views, 0.1, 0.5, joint=is_joint, frozen=is_at_rest) for _ in range(2)]
        moved = {name for name, weight in backbone.named_parameters() if not torch.equal(weight, before[name])}
        assert moved == {"fc.weight", "fc.bias"}
        assert all(weight.requires_grad for weight in backbone.parameters())
        state = dict(learner.network.state_dict())
        state |= dict(learner.adaptation.theta) if learner.adaptation else {}
        state |= (
            {f"average {k}": v for k, v in learner.average.backbone.state_dict().items()} if learner.average else {}
        )
        found.append((losses, learner.gradient_norm, state))
    (losses, norm, state), (*expected, state_expected) = found
    assert [losses, norm] == expected
    assert [name for name, value in state.items() if not torch.equal(value, state_expected[name])] == []


def test_both_classifiers_of_a_distilled_vit_train() -> None:
    network: Any = timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=3, img_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2
    )
    with at_rest(network):
        network(torch.randn(2, 3, 16, 16))[0].sum().backward()
        network(torch.randn(2, 3, 16, 16))[1].sum().backward()
    left = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert left == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


def test_more_epochs_at_rest_than_there_are() -> None:
    with pytest.raises(UserError, match=r"train.freeze_epochs=4 is longer than train.epochs=3"):
        load_recipe([*SUPERVISED, "train.freeze_epochs=4"])
