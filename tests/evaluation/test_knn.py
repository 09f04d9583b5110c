"""kNN evaluation against plain exact kNN in torch, lightly's vote, and cases that can be counted by hand."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lightly.utils.benchmarking import knn_predict
from torch import Tensor

from ssl_adapt.evaluation.knn import KnnResult, evaluate_knn
from ssl_adapt.evaluation.neighbour_search import QUERIES_PER_SEARCH
from ssl_adapt.evaluation.protocol import PRESETS, KnnProtocol

pytestmark = pytest.mark.exactness

EXP = KnnProtocol(layer="backbone", k=1, temperature=0.5, weighting="exp")
MAJORITY = KnnProtocol(layer="backbone", k=1, temperature=None, weighting="majority")


def rank_classes(similarities: Tensor, labels: Tensor, protocol: KnnProtocol) -> list[tuple[tuple, int]]:
    """The k neighbours of one query -> (score, label) from the best to the worst, one class at a time."""
    ranking = []
    for label in labels.unique().tolist():
        mine = similarities[labels == label]
        score: tuple = (len(mine), mine.sum().item())
        if protocol.weighting == "exp":
            score = ((mine / protocol.temperature).exp().sum().item(),)
        ranking.append((score, label))
    return sorted(ranking, key=lambda entry: entry[0], reverse=True)


def exact_knn(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, protocol: KnnProtocol
) -> tuple[list[bool], list[bool]]:
    """For each query whether it is right at the first and among the first five.

    Hypothesis drops examples in which float32 and float64 may honestly disagree: near-equal similarities
    at rank k, near-equal votes.
    """
    similarities = F.normalize(queries.double(), dim=1) @ F.normalize(bank.double(), dim=1).T
    top1, top5 = [], []
    for row, true_label in zip(similarities, query_labels.tolist(), strict=True):
        values, order = row.sort(descending=True)
        if protocol.k < len(bank):
            assume(values[protocol.k - 1] - values[protocol.k] > 1e-5)
        ranking = rank_classes(values[: protocol.k], bank_labels[order[: protocol.k]], protocol)
        for (better, _), (worse, _) in pairwise(ranking[:6]):
            assume(better[:-1] > worse[:-1] or better[-1] - worse[-1] > 1e-5 * abs(better[-1]))
        labels = [label for _, label in ranking]
        top1.append(labels[0] == true_label)
        top5.append(true_label in labels[:5])
    return top1, top5


@st.composite
def knn_cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor, KnnProtocol]:
    bank_count, query_count = draw(st.integers(1, 60)), draw(st.integers(1, 12))
    dim = draw(st.integers(2, 20))
    bank_names = draw(st.lists(st.integers(-3, 10**12), min_size=1, max_size=9, unique=True))
    query_names = draw(st.lists(st.integers(-3, 3), max_size=2)) + bank_names[: draw(st.integers(1, 9))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def features(count: int) -> Tensor:
        return torch.randn(count, dim, generator=generator) * 10 ** draw(st.floats(-3, 3))

    def labels(names: list[int], count: int) -> Tensor:
        return torch.tensor(names)[torch.randint(len(names), (count,), generator=generator)]

    temperature = draw(st.sampled_from([None, 0.07, 0.1, 0.5, 3.0]))
    weighting = "majority" if temperature is None else "exp"
    k = draw(st.integers(1, bank_count))
    protocol = KnnProtocol(layer="projection", k=k, temperature=temperature, weighting=weighting)
    bank = features(bank_count), labels(bank_names, bank_count)
    queries = features(query_count), labels(query_names, query_count)
    return *bank, *queries, protocol


@settings(max_examples=300, deadline=None, derandomize=True)
@given(knn_cases())
def test_equals_exact_torch_knn(case: tuple[Tensor, Tensor, Tensor, Tensor, KnnProtocol]) -> None:
    bank, bank_labels, queries, query_labels, protocol = case
    top1, top5 = exact_knn(*case)
    result = evaluate_knn(*case)
    assert result.top1 == sum(top1) / len(queries)
    assert result.top5 == sum(top5) / len(queries)
    assert (result.protocol, result.bank_count, result.query_count) == (protocol, len(bank), len(queries))
    assert list(result.per_class) == sorted({*bank_labels.tolist(), *query_labels.tolist()})
    for label, accuracy in result.per_class.items():
        mine = [right for right, true in zip(top1, query_labels.tolist(), strict=True) if true == label]
        assert (math.isnan(accuracy) and not mine) or accuracy == sum(mine) / len(mine)


def clusters(count: int, *, dim: int = 24, class_count: int = 10, seed: int) -> tuple[Tensor, Tensor]:
    """Features that overlap enough for a kNN to be wrong now and then."""
    centres = torch.randn(class_count, dim, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(class_count, (count,), generator=generator)
    return 0.5 * centres[labels] + torch.randn(count, dim, generator=generator), labels


@pytest.mark.parametrize("preset", ["simclr_cifar", "instdisc", "dino"])
def test_equals_lightly_over_many_chunks(preset: str) -> None:
    bank, bank_labels = clusters(900, seed=1)
    queries, query_labels = clusters(2 * QUERIES_PER_SEARCH + 7, seed=2)
    protocol = KnnProtocol.preset(preset)
    unit_queries, unit_bank = F.normalize(queries, dim=1), F.normalize(bank, dim=1)
    predicted = knn_predict(unit_queries, unit_bank.T, bank_labels, 10, protocol.k, protocol.temperature)
    result = evaluate_knn(bank, bank_labels, queries, query_labels, protocol)
    assert result.top1 == (predicted[:, 0] == query_labels).double().mean().item()
    assert 0.5 < result.top1 < 0.95
    assert result.top1 < result.top5 <= 1
    assert len(result.per_class) == 10
    alone = [
        evaluate_knn(bank, bank_labels, queries[i : i + 1], query_labels[i : i + 1], protocol).top1
        for i in range(0, len(queries), 50)
    ]
    assert len(alone) == 21
    assert alone == (predicted[::50, 0] == query_labels[::50]).double().tolist()


def test_majority_is_broken_by_similarity_and_exp_weighs() -> None:
    # angles from the query: class 4 is nearest, class 7 the tighter pair
    angles = torch.tensor([0.1, 1.2, 0.5, 0.6, 1.5])
    bank = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([4, 4, 7, 7, 9])
    query = torch.tensor([[2.0, 0.0]])
    # cosines: class 4 has 0.995 and 0.362, class 7 has 0.878 and 0.825, class 9 has 0.071

    def winner(protocol: KnnProtocol) -> int:
        right = [c for c in (4, 7, 9) if evaluate_knn(bank, labels, query, torch.tensor([c]), protocol).top1]
        assert len(right) == 1
        return right[0]

    assert winner(replace(MAJORITY, k=1)) == 4
    assert winner(replace(MAJORITY, k=4)) == 7  # two votes each, 1.357 < 1.703
    assert winner(replace(MAJORITY, k=3)) == 7  # two votes beat the nearest one
    assert winner(replace(EXP, k=4, temperature=0.5)) == 7
    assert winner(replace(EXP, k=4, temperature=0.05)) == 4
    assert winner(replace(EXP, k=5, temperature=1e-4)) == 4


def test_count_decides_before_similarity() -> None:
    # three votes of cosine -1 against two of +1: a majority is a majority
    bank = torch.tensor([[1.0, 0.0]] * 2 + [[-1.0, 0.0]] * 3)
    labels = torch.tensor([0, 0, 1, 1, 1])
    result = evaluate_knn(bank, labels, torch.tensor([[1.0, 0.0]]), torch.tensor([1]), replace(MAJORITY, k=5))
    assert result.top1 == 1.0


def test_top5_counts_only_classes_with_a_vote() -> None:
    bank = torch.eye(8)
    labels = torch.arange(8)
    query = torch.tensor([[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])

    def top5(label: int, k: int) -> float:
        return evaluate_knn(bank, labels, query, torch.tensor([label]), replace(EXP, k=k)).top5

    assert [top5(label, k=8) for label in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert [top5(label, k=2) for label in range(8)] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_labels_missing_on_either_side() -> None:
    bank = torch.eye(4)
    bank_labels = torch.tensor([30, -2, 30, 10**9])
    queries = torch.stack([bank[0], bank[2], bank[1], bank[1]])
    query_labels = torch.tensor([30, 30, 5, 30])
    result = evaluate_knn(bank, bank_labels, queries, query_labels, replace(EXP, k=1))
    assert (result.top1, result.top5) == (0.5, 0.5)
    assert list(result.per_class) == [-2, 5, 30, 10**9]
    assert math.isnan(result.per_class[-2])
    assert result.per_class[5] == 0.0
    assert result.per_class[30] == pytest.approx(2 / 3)
    assert math.isnan(result.per_class[10**9])


def test_class_count_lists_every_class() -> None:
    bank, labels = torch.eye(3), torch.tensor([0, 2, 2])
    result = evaluate_knn(bank, labels, bank[:1], labels[:1], EXP, class_count=5)
    assert list(result.per_class) == [0, 1, 2, 3, 4]
    assert result.per_class[0] == 1.0
    assert sum(math.isnan(accuracy) for accuracy in result.per_class.values()) == 4
    for outside in (-1, 3):
        with pytest.raises(ValueError, match=rf"run from {outside} to {outside} and class_count is 3"):
            evaluate_knn(bank, labels, bank[:1], torch.tensor([outside]), EXP, class_count=3)


def test_duplicated_bank_gives_the_same_classes() -> None:
    bank, bank_labels = clusters(200, seed=3)
    queries, query_labels = clusters(300, seed=4)
    once = evaluate_knn(bank, bank_labels, queries, query_labels, replace(EXP, k=15))
    twice = evaluate_knn(bank.repeat(2, 1), bank_labels.repeat(2), queries, query_labels, replace(EXP, k=30))
    assert (once.top1, once.top5, once.per_class) == (twice.top1, twice.top5, twice.per_class)
    itself = evaluate_knn(bank, bank_labels, bank, bank_labels, replace(EXP, k=1))
    assert itself.top1 == 1.0


def test_scale_dtype_layout_and_gradients_do_not_matter() -> None:
    bank, bank_labels = clusters(200, seed=5)
    queries, query_labels = clusters(100, seed=6)
    expected = evaluate_knn(bank, bank_labels, queries, query_labels, replace(EXP, k=20))
    before = [tensor.clone() for tensor in (bank, bank_labels, queries, query_labels)]
    other = evaluate_knn(
        (1000 * bank.double()).T.contiguous().T.requires_grad_(),
        bank_labels.to(torch.uint8),
        queries.double() / 1000,
        query_labels.to(torch.int32),
        replace(EXP, k=20),
    )
    assert other == expected
    half = evaluate_knn(bank.bfloat16(), bank_labels, queries.half(), query_labels, replace(EXP, k=20))
    assert half.top1 == pytest.approx(expected.top1, abs=0.05)
    assert all(map(torch.equal, before, (bank, bank_labels, queries, query_labels)))


def test_features_of_zeros_are_similar_to_nothing() -> None:
    bank = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    result = evaluate_knn(bank, labels, torch.tensor([[1.0, 0.0]]), torch.tensor([1]), replace(MAJORITY, k=3))
    assert result.top1 == 1.0
    dead = evaluate_knn(bank, labels, torch.zeros(1, 2), torch.tensor([0]), replace(EXP, k=3))
    assert dead.top1 == 1.0  # three equal votes: the smallest label


def test_presets() -> None:
    expected = {
        "simclr_cifar": "kNN on backbone features, k 200, weights exp(cos/0.5)",
        "instdisc": "kNN on backbone features, k 200, weights exp(cos/0.1)",
        "dino": "kNN on backbone features, k 20, weights exp(cos/0.07)",
        "plain": "kNN on backbone features, k 20, majority vote",
    }
    assert {name: str(KnnProtocol.preset(name)) for name in PRESETS} == expected


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'simclr_cifer'; did you mean 'simclr_cifar'\? available: .*plain"):
        KnnProtocol.preset("simclr_cifer")
    with pytest.raises(ValueError, match=r"'xyz'; available: simclr_cifar"):
        KnnProtocol.preset("xyz")


def test_protocol_refuses_what_means_nothing() -> None:
    with pytest.raises(ValueError, match="layer 'head'; choose one of: backbone, projection"):
        replace(EXP, layer="head")
    with pytest.raises(ValueError, match="weighting 'softmax'; choose one of: exp, majority"):
        replace(EXP, weighting="softmax")
    with pytest.raises(ValueError, match="k >= 1, got 0"):
        replace(EXP, k=0)
    for temperature in (None, 0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature > 0, got {temperature}"):
            replace(EXP, temperature=temperature)
    with pytest.raises(ValueError, match=r"majority vote has no temperature, got 0\.5"):
        replace(EXP, weighting="majority")


def test_result_prints_its_protocol() -> None:
    protocol = KnnProtocol.preset("simclr_cifar")
    result = KnnResult(0.8239, 0.99, {0: 0.8239}, protocol, bank_count=50_000, query_count=10_000)
    assert str(result) == (
        "top-1 82.39%, top-5 99.00% "
        "(kNN on backbone features, k 200, weights exp(cos/0.5); bank 50,000, queries 10,000)"
    )


def test_errors_say_what_is_wrong() -> None:
    bank, labels = torch.randn(5, 3), torch.arange(5)
    broken = bank.clone()
    broken[1, 2], broken[3, 0] = math.nan, math.inf
    cases = [
        (
            (bank, labels, bank, labels, replace(EXP, k=6)),
            "k is 6 but the bank holds 5 features; set k to at most 5",
        ),
        ((bank, labels, bank[:, :2], labels, EXP), "bank features have 3 dimensions and query features 2"),
        ((bank, labels[:4], bank, labels, EXP), r"there are 5 bank features and labels of shape \(4,\)"),
        (
            (bank, labels, bank, labels[:, None], EXP),
            r"there are 5 query features and labels of shape \(5, 1\)",
        ),
        ((bank[:0], labels[:0], bank, labels, EXP), r"bank features have shape \(0, 3\)"),
        ((bank, labels, bank[:0], labels[:0], EXP), r"query features have shape \(0, 3\)"),
        ((bank, labels, bank[0], labels[:3], EXP), r"query features have shape \(3,\)"),
        ((broken, labels, bank, labels, EXP), "2 of 5 bank features are not finite"),
        ((bank, labels, broken, labels, EXP), "2 of 5 query features are not finite"),
        ((bank, labels.float(), bank, labels, EXP), "bank labels are torch.float32; pass integers"),
        ((bank, labels, bank, labels > 2, EXP), r"query labels are torch\.bool; pass integers"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluate_knn(*arguments)
    assert len(cases) == 11
