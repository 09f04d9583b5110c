"""One suite that every objective runs: a new one adds a row to OBJECTIVES and, if it compares images, a reference."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from lightly.loss import NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from objective_rows import ROWS, arguments, batch_of, create, every_objective
from short_runs import assert_same_weights, events, run
from torch import Tensor, nn

from ssl_adapt import Architecture, load_recipe
from ssl_adapt.adaptation.edge import MixedEdge
from ssl_adapt.data import ImageSet, load_image_splits
from ssl_adapt.evaluation.monitor import FeatureMonitor
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.objectives import Objective
from ssl_adapt.training.accumulation import backward_in_parts
from ssl_adapt.training.objective import OBJECTIVES


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_image_splits("digits", image_px=8).train


def test_every_objective_is_here() -> None:
    assert list(ROWS) == list(OBJECTIVES)
    assert all(load_recipe(arguments(name)).objective.name == name for name in ROWS)


# --- the loss ---------------------------------------------------------------------------------------------


def reference_simclr(objective: Any, outputs: Sequence[Tensor]) -> Tensor:
    return NTXentLoss(temperature=objective.temperature)(*outputs)


def reference_byol(objective: Any, outputs: Sequence[Tensor]) -> Tensor:
    prediction_a, prediction_b, target_a, target_b = outputs
    cosine = NegativeCosineSimilarity()
    return 4 + 2 * cosine(prediction_a, target_b) + 2 * cosine(prediction_b, target_a)


def reference_vicreg(objective: Any, outputs: Sequence[Tensor]) -> Tensor:
    return VICRegLoss(objective.invariance_weight, objective.variance_weight, objective.covariance_weight)(*outputs)


def reference_supervised(objective: Any, outputs: Sequence[Tensor]) -> Tensor:
    logits, labels = outputs
    share = objective.label_smoothing
    targets = F.one_hot(labels, objective.num_classes).double() * (1 - share) + share / objective.num_classes
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


REFERENCES: dict[str, Callable[[Any, Sequence[Tensor]], Tensor]] = {
    "simclr": reference_simclr,
    "byol": reference_byol,
    "vicreg": reference_vicreg,
    "supervised": reference_supervised,
}


@pytest.mark.exactness
@every_objective
def test_the_loss_is_that_of_a_reference(name: str, digits: ImageSet) -> None:
    learner = create(name, digits)
    objective = learner.objective
    with torch.no_grad():
        outputs = objective.forward(objective.network, learner.views(batch_of(digits)))
    outputs = [output.double() if output.is_floating_point() else output for output in outputs]
    loss = objective.loss(outputs)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, REFERENCES[name](objective, outputs).double(), rtol=1e-10, atol=1e-12)
    half = objective.loss([output.bfloat16() if output.is_floating_point() else output for output in outputs])
    assert half.dtype == torch.float32, "whatever autocast gave"


# --- the views and the network ----------------------------------------------------------------------------


@every_objective
def test_views_and_outputs_have_a_row_for_each_image(name: str, digits: ImageSet) -> None:
    learner = create(name, digits)
    objective = learner.objective
    batch = batch_of(digits, 6)
    torch.manual_seed(3)
    views = objective.views(batch)
    torch.manual_seed(3)
    again = objective.views(batch)
    assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True)), "torch's CPU generator decides"
    pictures = [view for view in views if view.ndim == 4]
    assert len(pictures) == load_recipe(arguments(name)).objective.views_per_image
    assert all(view.shape == (6, 3, 8, 8) and view.dtype == torch.float32 for view in pictures)
    outputs = objective.forward(objective.network, views)
    assert {len(tensor) for tensor in (*views, *outputs)} == {6}


@pytest.mark.exactness
@every_objective
def test_the_mixed_network_starts_as_the_plain_one(name: str, digits: ImageSet) -> None:
    mixed, plain = create(name, digits), create(name, digits, "adapt=null")
    count = sum(isinstance(module, MixedEdge) for module in mixed.network.modules())
    edges = len(Architecture.of(plain.network.backbone).edges)
    assert count == edges * (1 + len(mixed.network.teacher_backbones)) > 0
    torch.manual_seed(0)
    views = mixed.views(batch_of(digits))
    found, expected = (learner.objective.forward(learner.network, views) for learner in (mixed, plain))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(*(learner.objective.loss(outputs) for learner, outputs in ((mixed, found), (plain, expected))))


# --- steps ------------------------------------------------------------------------------------------------


def without_batch_statistics(objective: Objective) -> Objective:
    """BatchNorm sees a part at a time; with its statistics at rest the parts of a batch make the whole."""
    for module in objective.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc]
    return objective


@pytest.mark.exactness
@every_objective
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(name: str, digits: ImageSet) -> None:
    learner = create(name, digits)
    objective = without_batch_statistics(learner.objective)
    objective.network.double()
    torch.manual_seed(0)
    views = [view.double() if view.is_floating_point() else view for view in learner.views(batch_of(digits, 11))]
    accelerator, found = Accelerator(cpu=True), []
    for parts in (1, 3):
        loss = backward_in_parts(objective, objective.network, views, parts, accelerator)
        found.append((loss.item(), {n: p.grad for n, p in objective.network.named_parameters() if p.grad is not None}))
        objective.network.zero_grad()
    (whole, gradients), (in_parts, gradients_in_parts) = found
    assert in_parts == pytest.approx(whole, rel=1e-10)
    assert list(gradients_in_parts) == list(gradients)
    assert len(gradients) > 10
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradients_in_parts[key], gradient, rtol=1e-8, atol=1e-10)


@every_objective
def test_a_step_that_is_not_finite_moves_nothing(name: str, digits: ImageSet) -> None:
    learner = create(name, digits)
    before = {key: value.clone() for key, value in learner.network.state_dict().items()}
    views = learner.views(batch_of(digits))
    views[0][0, 0, 0, 0] = torch.nan
    assert learner.train_weights(views, 0.1, 0.5) is None
    assert learner.train_theta(views) is None
    after = learner.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@every_objective
def test_the_loss_falls(name: str, digits: ImageSet) -> None:
    """In twenty steps on one batch."""
    learner = create(name, digits)
    torch.manual_seed(0)
    views = learner.views(batch_of(digits, 64))
    losses = [learner.train_weights(views, 2e-2 if name == "supervised" else 2e-3, 0.1) for _ in range(20)]
    assert all(loss is not None for loss in losses)
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.exactness
@every_objective
def test_teacher_and_student_are_fixed_to_the_same_architecture(name: str, digits: ImageSet) -> None:
    learner = create(name, digits)
    assert learner.adaptation is not None
    with torch.no_grad():
        for index, theta in enumerate(learner.adaptation.theta_parameters()):
            theta.copy_(torch.eye(3)[index % 3])
    views = learner.views(batch_of(digits))
    learner.network.eval()
    before = learner.objective.forward(learner.network, views)
    architecture = learner.fix()
    assert architecture.changed
    after = learner.objective.forward(learner.network, views)
    for mixed, fixed in zip(before, after, strict=True):
        torch.testing.assert_close(fixed, mixed)
    for backbone in (learner.network.backbone, *learner.network.teacher_backbones):
        assert Architecture.of(backbone) == architecture
    assert not any(isinstance(module, MixedEdge) for module in learner.network.modules())
    learner.network.train()
    assert learner.train_weights(views, 1e-3, 0.5) is not None


# --- whole runs -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run of each objective, made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            run(made[name], *arguments(name), base=[])
        return made[name]

    return folder_of


@every_objective
def test_stopped_and_resumed_equals_uninterrupted(name: str, whole_run: Callable[[str], Path], tmp_path: Path) -> None:
    run(tmp_path, *arguments(name), "run.stop_after_epochs=1", base=[])
    run(tmp_path, *arguments(name), "run.resume=auto", base=[])
    assert_same_weights(tmp_path, whole_run(name))
    losses = [[event["loss"] for event in events(folder, "epoch")] for folder in (tmp_path, whole_run(name))]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


@every_objective
def test_a_collapse_is_seen(name: str, digits: ImageSet) -> None:
    """Of features that are one point for all images the spread is 0; those of a fresh network spread."""
    learner, images = create(name, digits), digits.subset(torch.arange(256))
    learner.network.backbone.reset_classifier(0)
    monitor = FeatureMonitor(
        images, None, KnnProtocol.preset("simclr_cifar"), (0.3,) * 3, (0.3,) * 3, 128, torch.device("cpu"), 0
    )
    fresh = monitor.evaluate(learner.network.backbone)
    for weight in learner.network.backbone.parameters():
        weight.data.zero_()
    collapsed = monitor.evaluate(learner.network.backbone)
    assert collapsed.feature_std == 0
    assert fresh.feature_std > 1e-3
    assert fresh.rank_me > collapsed.rank_me


@every_objective
def test_a_run_records_its_score_and_where_features_can_collapse_their_spread(
    name: str, whole_run: Callable[[str], Path]
) -> None:
    [result] = events(whole_run(name), "result")
    score = {"kNN": "knn_top1", "accuracy": "accuracy_top1"}[OBJECTIVES[name].judge]
    assert 0 < result[score] <= 1
    if OBJECTIVES[name].judge == "kNN":
        assert result["feature_std"] > 0
        assert result["rank_me"] > 1
