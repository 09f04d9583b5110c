"""The benchmark: its timing core under a clock that we move, every comparison in small, the naive reference."""

import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import lightly
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.bench_options import GROUPS, BenchOptions
from benchmarks.environment import describe_environment
from benchmarks.family_comparison import compare_family, create_family
from benchmarks.knn_comparison import check_scores, compare_knn
from benchmarks.naive import mix_naively
from benchmarks.nt_xent_comparison import check_losses, compare_nt_xent
from benchmarks.step_comparison import (
    compare_simclr_steps,
    compare_supervised_steps,
    create_alternation,
    create_naive_alternation,
)
from benchmarks.suite import SUITE, run_suite
from benchmarks.timing import Comparison, DisagreementError, Timing, time_contenders
from benchmarks.view_comparison import compare_views
from ssl_adapt.adaptation.adaptation import Adaptation

CPU = torch.device("cpu")
TINY = {
    "views": lambda: compare_views(4, device=CPU, image_px=8),
    "step": lambda: compare_supervised_steps(4, device=CPU, width=2, image_px=8),
    "step, channels_last": lambda: compare_supervised_steps(
        4, device=CPU, memory_format=torch.channels_last, width=2, image_px=8
    ),
    "step, SimCLR": lambda: compare_simclr_steps(4, overrides=["model.args.width=2", "data.image_px=8"]),
    "nt_xent": lambda: compare_nt_xent(4, device=CPU, dim=8),
    "knn": lambda: compare_knn(300, 40, device=CPU, dim=32, k=20),
    "adaptable": lambda: compare_family(create_family("mobilenetv3_small_050", {}, device=CPU, batch_size=2)),
}
CONTENDERS = {
    "views": 3,
    "step": 6,
    "step, channels_last": 6,
    "step, SimCLR": 2,
    "nt_xent": 3,
    "knn": 2,
    "adaptable": 2,
}


class Clock:
    """Seconds that only pass when a contender lets them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: list[float]) -> Callable[[], str]:
        durations = iter(seconds)

        def call() -> str:
            self.calls.append(name)
            self.now += next(durations)
            return name.upper()

        return call


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_contenders_take_turns_and_the_warm_up_does_not_count() -> None:
    clock, seen = Clock(), []
    slow = clock.contender("slow", [90, 80, 4, 1, 2, 3, 10])
    fast = clock.contender("fast", [70, 60, 0.5, 0.5, 0.5, 0.5, 0.5])
    contenders = {"slow": slow, "fast": fast}
    comparison = Comparison("a", "b", contenders, "images", 6, check=lambda answers: seen.append(answers))
    result = time_contenders(comparison, repeats=5, device=CPU, warm_up_rounds=2, clock=clock)

    assert clock.calls == ["slow", "fast"] * 7
    assert seen == [{"slow": "SLOW", "fast": "FAST"}]
    assert result.timings["slow"].seconds == pytest.approx((4, 1, 2, 3, 10))
    assert result.timings["slow"].median_sec == pytest.approx(3)
    assert result.timings["slow"].iqr_sec == pytest.approx(2)  # quartiles 2 and 4: the slow call does not count
    assert result.timings["fast"].iqr_sec == pytest.approx(0)
    assert result.reference == "slow"
    assert result.ratio("slow") == 1
    assert result.ratio("fast") == pytest.approx(1 / 6)
    assert result.units_per_sec("fast") == pytest.approx(12)


def test_median_and_spread_of_an_even_count() -> None:
    timing = Timing((8.0, 1.0, 2.0, 4.0))
    assert (timing.median_sec, timing.iqr_sec) == (3, 5 - 1.75)


def test_contenders_that_disagree_are_not_timed() -> None:
    clock = Clock()
    contenders = {name: clock.contender(name, [1] * 9) for name in ("a", "b")}

    def check(answers: object) -> None:
        raise DisagreementError("the answers differ")

    with pytest.raises(DisagreementError, match="differ"):
        time_contenders(Comparison("n", "s", contenders, "u", 1, check=check), repeats=3, device=CPU, clock=clock)
    assert clock.calls == ["a", "b"]


@pytest.mark.parametrize("check", [check_scores, check_losses])
def test_checks_tell_different_answers(check: Callable[[dict[str, float]], None]) -> None:
    check({"ours": 0.5, "other": 0.5})
    with pytest.raises(DisagreementError, match=r"0\.501"):
        check({"ours": 0.5, "other": 0.501})


@pytest.mark.parametrize("name", TINY)
def test_comparison_runs_in_small(name: str) -> None:
    torch.manual_seed(0)
    comparison = TINY[name]()
    result = time_contenders(comparison, repeats=2, device=CPU, warm_up_rounds=1)
    assert len(result.timings) == CONTENDERS[name]
    assert all(len(t.seconds) == 2 and min(t.seconds) > 0 for t in result.timings.values())
    assert comparison.name.startswith(name.partition(",")[0])


@pytest.mark.parametrize("name", ["nt_xent", "knn"])
def test_a_wrong_contender_fails_the_bench(name: str) -> None:
    torch.manual_seed(0)
    comparison = TINY[name]()
    last = list(comparison.contenders)[-1]
    contenders = {**comparison.contenders, last: lambda: comparison.contenders[last]() + 0.01}
    with pytest.raises(DisagreementError, match="differ"):
        time_contenders(replace(comparison, contenders=contenders), repeats=2, device=CPU)


def test_views_of_all_contenders_are_normalised_pairs() -> None:
    torch.manual_seed(0)
    pairs = [call() for call in compare_views(64, device=CPU, image_px=16).contenders.values()]
    assert len(pairs) == 3
    for view_a, view_b in pairs:
        assert view_a.shape == view_b.shape == (64, 3, 16, 16)
        assert view_a.dtype == view_b.dtype == torch.float32
        assert (view_a != view_b).flatten(1).any(1).all()
        views = torch.cat([view_a, view_b])
        pixels = views * torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)
        pixels += torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
        assert -1e-5 <= pixels.min() <= pixels.max() <= 1 + 1e-5
        assert pixels.mean().item() == pytest.approx(0.5, abs=0.05)  # of uniform noise


def test_knn_scores_agree_and_are_neither_chance_nor_perfect() -> None:
    torch.manual_seed(0)
    with_faiss, with_topk = (call() for call in TINY["knn"]().contenders.values())
    assert with_faiss == with_topk
    assert 0.6 < with_faiss < 0.95


def test_nt_xent_without_lightly_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly.loss", None)  # what Python does for a module that is not there
    comparison = TINY["nt_xent"]()
    assert list(comparison.contenders) == ["ours", "plain logsumexp"]
    assert "lightly is not installed" in comparison.notes[0]


@pytest.mark.parametrize("model", ["resnet20", "resnet50_cifar"])
@pytest.mark.usefixtures("in_float64")
def test_naive_edges_give_the_gradients_of_mixed_edges(model: str) -> None:
    torch.manual_seed(0)
    mixed = timm.create_model(model, layers=(2, 2), width=4, num_classes=5)
    naive = deepcopy(mixed)
    adaptation, naive_theta = Adaptation(mixed), mix_naively(naive)
    assert list(adaptation.theta) == list(naive_theta)
    assert len(naive_theta) == (12 if model == "resnet20" else 28)
    for name, theta in adaptation.theta.items():
        theta.data = torch.randn(3)
        naive_theta[name].data = theta.data.clone()
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(5, (6,))

    naive_loss = F.cross_entropy(naive(images), labels)
    naive_loss.backward()
    loss = F.cross_entropy(mixed(images), labels)
    loss.backward()
    torch.testing.assert_close(loss, naive_loss, rtol=1e-12, atol=0)
    weight_grads = {name: weight.grad for name, weight in mixed.named_parameters()}
    naive_grads = {name: weight.grad for name, weight in naive.named_parameters()}
    torch.testing.assert_close(weight_grads, naive_grads, rtol=1e-9, atol=1e-11)

    with adaptation.architecture_pass():
        F.cross_entropy(mixed(images), labels).backward()
    for name, theta in adaptation.theta.items():
        torch.testing.assert_close(theta.grad, naive_theta[name].grad, rtol=1e-9, atol=1e-11)
    assert sum(theta.grad.abs().sum().item() for theta in naive_theta.values()) > 0.1


@pytest.mark.usefixtures("in_float64")
def test_naive_alternation_trains_as_ours() -> None:
    torch.manual_seed(0)
    mixed = timm.create_model("resnet20", width=2)
    naive, start = deepcopy(mixed), deepcopy(mixed.fc.weight)
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(10, (6,))

    def loss(network: nn.Module) -> Tensor:
        return F.cross_entropy(network(images), labels)

    train_weights, train_theta = create_alternation(mixed, loss)
    train_naively = create_naive_alternation(naive, loss)
    for _ in range(3):
        train_weights()
        train_theta()
        train_naively()
    weights, naive_weights = dict(mixed.named_parameters()), dict(naive.named_parameters())
    torch.testing.assert_close(weights, naive_weights, rtol=1e-8, atol=1e-10)
    assert (mixed.fc.weight - start).abs().max() > 1e-3

    train_theta()  # moves theta alone, so that the loss changes while all weights stay
    before = deepcopy(weights), loss(mixed)
    train_theta()
    torch.testing.assert_close(weights, before[0], rtol=0, atol=0)
    assert loss(mixed) != before[1]


def test_suite_prints_tables_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    run_suite(
        BenchOptions(only="nt_xent,knn", repeats=3, json=str(path)),
        suite={group: lambda device, group=group: iter([TINY[group]()]) for group in ("nt_xent", "knn")},
    )
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["repeats"] == 3
    assert report["environment"]["torch"] == torch.__version__
    assert report["environment"]["lightly"] == lightly.__version__
    assert report["environment"].keys() == describe_environment(CPU).keys()
    assert [comparison["group"] for comparison in report["comparisons"]] == ["nt_xent", "knn"]
    printed = capsys.readouterr().out
    seen = 0
    for comparison in report["comparisons"]:
        assert comparison["name"] in printed
        first = comparison["contenders"][0]
        assert first["name"] == comparison["reference"]
        for contender in comparison["contenders"]:
            times = sorted(contender["times_ms"])
            assert len(times) == 3
            assert contender["median_ms"] == times[1]
            assert contender["iqr_ms"] == pytest.approx((times[2] - times[0]) / 2)
            assert contender["ratio"] == pytest.approx(times[1] / first["median_ms"])
            row = next(line for line in printed.splitlines() if line.startswith(f"{contender['name']}  "))
            assert f"{contender['median_ms']:,.2f}" in row
            assert f"{contender['ratio']:.2f}x" in row
            seen += 1
    assert seen == 5


def test_every_group_runs_in_small() -> None:
    assert {name.partition(",")[0] for name in TINY} == set(GROUPS) == set(SUITE)
