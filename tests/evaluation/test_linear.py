"""The linear probe: its two protocols, what chooses in them, and what they leave alone."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import linear_run
import pytest
import torch
import torch.nn.functional as F
from forked import run_processes
from linear_run import CLASSIC, FAST, SETTINGS, digits, measure, network
from scipy.stats import binomtest
from script_calls import run_command
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ssl_adapt.data import ImageSet
from ssl_adapt.evaluation.accuracy import wilson_interval
from ssl_adapt.evaluation.features import extract_features
from ssl_adapt.evaluation.linear import evaluate_linear, unchanged
from ssl_adapt.evaluation.linear_fit import count_right, fit_features, fit_sgd, held_out_parts, logistic_regression
from ssl_adapt.evaluation.linear_protocol import FeaturesProtocol, SgdProtocol
from ssl_adapt.evaluation.progress_bar import show_nothing

NO_BAR = show_nothing("", None)


def test_both_protocols_learn_and_agree() -> None:
    as_they_are = replace(CLASSIC, epochs=20, crop_scale=(1.0, 1.0), flip_p=0.0)
    (fast, _), (classic, _) = measure(FAST), measure(as_they_are)
    for result, values in ((fast, FAST.penalties), (classic, CLASSIC.learning_rates)):
        assert result.top1 > 0.8
        assert result.top1 < result.top5 <= 1
        assert result.interval[0] < result.top1 < result.interval[1]
        assert (result.train_count, result.test_count, result.features) == (648, 500, 54)
        assert list(result.held_out) == list(values)
    assert (fast.held_out_count, classic.held_out_count) == (648, 260)
    assert fast.top1 == pytest.approx(classic.top1, abs=0.03)


def test_the_fast_one_is_scikit_learn_s_with_the_best_penalty_on_all_images() -> None:
    result, _ = measure(FAST)
    best = max(result.held_out.values())
    assert result.chosen == max(penalty for penalty, right in result.held_out.items() if right == best)
    assert result.chosen < 10.0
    train, test = digits()
    bank, queries = (extract_features(network(), images, **SETTINGS) for images in (train, test))
    centre, scale = bank.mean(0), bank.std(0, correction=0)
    bank, queries = ((rows - centre) / scale.where(scale > 0, 1) for rows in (bank, queries))
    model = LogisticRegression(C=1 / (result.chosen * len(bank)), max_iter=1000).fit(bank.double(), train.labels)
    assert result.top1 == pytest.approx(model.score(queries.double(), test.labels), abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_without_images_is_never_the_answer(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % classes + 1  # class 0 has none
    features = torch.randn(60, 4, generator=generator) + labels[:, None]
    weight, bias = logistic_regression(features, labels, classes + 2, 1e-2, FAST)
    logits = F.linear(features.double(), weight, bias)
    model = LogisticRegression(C=1 / (1e-2 * 60), max_iter=1000).fit(features.double(), labels)
    assert torch.equal(logits.argmax(1), torch.from_numpy(model.predict(features.double())))
    assert torch.allclose(
        logits.softmax(1)[:, 1 : classes + 1], torch.from_numpy(model.predict_proba(features.double()))
    )


def test_one_class_alone_is_always_the_answer() -> None:
    weight, bias = logistic_regression(torch.randn(5, 3), torch.full((5,), 1), 3, 1.0, FAST)
    assert F.linear(torch.randn(4, 3).double(), weight, bias).argmax(1).tolist() == [1] * 4


def test_parts_are_balanced_and_there_are_as_many_as_the_images_need() -> None:
    labels = torch.tensor([0] * 70 + [1] * 31 + [2] * 4)
    part, parts = held_out_parts(labels, 30)
    assert parts == 2
    assert part.bincount().tolist() == [21] * 5
    for label, count in ((0, 70), (1, 31), (2, 4)):
        of_class = part[labels == label].bincount(minlength=5)
        assert of_class.sum() == count
        assert of_class.max() - of_class.min() <= 1
    assert held_out_parts(labels, 2000)[1] == 5
    assert held_out_parts(torch.arange(10_000) % 10, 2000)[1] == 1


def test_what_is_held_out_is_not_seen_by_what_is_scored_on_it_and_is_by_the_layer_that_is_kept() -> None:
    """Features of noise: what a layer has seen it knows by heart, of the rest it knows nothing."""
    table = torch.randn(200, 600, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 10
    pixels = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 1, 1).contiguous()
    image_set = ImageSet("noise", pixels, tuple("0123456789"), labels)
    protocol = SgdProtocol(epochs=30, batch_size=50, learning_rates=(0.03, 0.1), held_out_images=100)

    def embed(images: Tensor) -> Tensor:
        return table[images[:, 0, 0, 0].long()]

    fast = fit_features(table, labels, 10, FAST, NO_BAR)
    classic = fit_sgd(embed, image_set, table, protocol, torch.device("cpu"), 0, NO_BAR)
    for fit, count in ((fast, 200), (classic, 120)):
        assert fit.held_out_count == count
        assert max(fit.held_out.values()) < 0.25
        assert count_right(table, labels, fit.weight, fit.bias) == 200


@pytest.mark.parametrize("protocol", [FAST, replace(CLASSIC, epochs=1)])
def test_the_network_and_the_random_numbers_are_as_before(protocol: FeaturesProtocol | SgdProtocol) -> None:
    probed = network().train()
    probed.layers[1].running_mean.fill_(float("nan"))
    probed.layers[1].running_mean.zero_()
    before = {name: tensor.clone() for name, tensor in probed.state_dict().items()}
    state = torch.get_rng_state()
    evaluate_linear(probed, *digits(0.05), protocol, **SETTINGS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in probed.state_dict().items())
    assert all(module.training for module in probed.modules())
    assert all(parameter.grad is None for parameter in probed.parameters())


class Drifting(nn.Module):
    """A network whose buffer moves at each image that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        return images.flatten(1)


def test_a_network_that_changes_is_found() -> None:
    with pytest.raises(RuntimeError, match="the frozen network changed: seen"):
        evaluate_linear(Drifting(), *digits(0.05), FAST, **SETTINGS)
    probed = network()
    probed.layers[1].running_var.fill_(float("nan"))
    with unchanged(probed):
        pass  # NaN is as NaN was
    with pytest.raises(RuntimeError, match=r"layers\.1\.running_var"), unchanged(probed):
        probed.layers[1].running_var.zero_()


def test_crops_of_the_sgd_protocol_lie_within_the_image_and_differ() -> None:
    """A border of black would be a thing that no network pre-trained on crops has seen."""
    ramp = torch.linspace(100, 250, 8, dtype=torch.float32).to(torch.uint8)
    image_set = ImageSet("ramps", ramp.expand(10, 3, 8, 8).contiguous(), ("a", "b"), torch.arange(10) % 2)
    seen = []

    def embed(images: Tensor) -> Tensor:
        seen.append(images.float())
        return seen[-1].flatten(1)

    fit_sgd(
        embed, image_set, torch.zeros(10, 192), SgdProtocol(epochs=4, held_out_images=2), torch.device("cpu"), 0, NO_BAR
    )  # fmt: skip
    crops = torch.cat(seen)
    assert crops.shape == (40, 3, 8, 8)
    assert crops.min() >= 99.99
    assert crops.max() <= 250.01
    assert len(crops.flatten(1).unique(dim=0)) > 15
    rising = crops[:, 0, 0, 0] < crops[:, 0, 0, -1]
    assert 0 < rising.sum() < 40  # flipped or not


def test_the_sgd_protocol_repeats_and_follows_its_seed() -> None:
    protocol = replace(CLASSIC, epochs=1, learning_rates=(0.1,))
    train, _ = digits(0.1)
    features = torch.zeros(len(train), 192)

    def weight(seed: int) -> Tensor:
        return fit_sgd(
            lambda images: images.flatten(1).float() / 255, train, features, replace(protocol, seed=seed),
            torch.device("cpu"), 0, NO_BAR,
        ).weight  # fmt: skip

    first = weight(0)
    torch.rand(3)
    assert torch.equal(weight(0), first)
    assert not torch.equal(weight(1), first)
    assert first.abs().max() > 0


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (3, 10), (10, 10), (5321, 10_000)])
def test_the_interval_is_wilson_s(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": digits(None).train.subset(torch.arange(4))}, "there are 4 labelled images and a fifth of them"),
        ({"train": ImageSet("x", torch.zeros(9, 3, 8, 8, dtype=torch.uint8))}, "needs labels of the training and"),
    ],
)
def test_images_that_cannot_be_probed(changes: dict[str, ImageSet], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate_linear(network(), **{**digits(None)._asdict(), **changes}, protocol=FAST, **SETTINGS)


def test_several_processes_find_what_one_does(tmp_path: Path) -> None:
    ended = run_processes(3, tmp_path, linear_run.main, tmp_path)
    assert [process.code for process in ended] == [0] * 3, ended
    found = [pickle.loads((tmp_path / f"{rank}_of_3").read_bytes()) for rank in range(3)]
    expected = [measure(FAST), measure(replace(CLASSIC, epochs=2))]
    for index, (result, seen) in enumerate(expected):
        assert [own[index][0] for own in found] == [result] * 3
        assert sum(own[index][1] for own in found) == seen
    assert expected[0][1] == 648 + 500
    weight, score = linear_run.online()
    for own in found:
        assert torch.allclose(own[2][0], weight, atol=1e-6)
        assert own[2][1] == pytest.approx(score, rel=1e-5)
    assert weight.abs().max() > 1e-3
    assert [("top-1" in process.out) for process in ended] == [True, False, False]
    assert run_command("linear", *linear_run.COMMAND, f"json={tmp_path / 'one.json'}").code == 0
    of_three, of_one = (json.loads((tmp_path / name).read_text()) for name in ("linear.json", "one.json"))
    assert of_three.pop("seconds") > 0
    assert of_one.pop("seconds") > 0
    assert of_three == of_one
