"""The search below kNN: shards merged are the whole bank, and among lists (IVF) the exact search is the measure."""

import math
from dataclasses import replace

import faiss
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_adapt.evaluation.knn import evaluate_knn, predict_classes
from ssl_adapt.evaluation.neighbour_search import (
    MISSING,
    QUERIES_PER_SEARCH,
    RECALL_QUERIES,
    Neighbours,
    create_index,
    iterate_neighbours,
    iterate_over_shards,
    measure_recall,
    nearest_candidates,
    search_index,
)
from ssl_adapt.evaluation.protocol import KnnProtocol

EXP = KnnProtocol(layer="backbone", k=20, temperature=0.1, weighting="exp")
MAJORITY = KnnProtocol(layer="backbone", k=20, temperature=None, weighting="majority")


def unit_rows(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def clusters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features that overlap enough for a kNN to be wrong now and then, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(10, (count,), generator=generator)
    return unit_rows(10, 24, 0)[classes] + 0.3 * torch.randn(count, 24, generator=generator), classes


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any),
    queries=st.integers(1, 40),
    share_of_k=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_the_nearest_of_all_shards_are_those_of_the_whole(
    sizes: list[int], queries: int, share_of_k: float, seed: int
) -> None:
    bank, wanted = unit_rows(sum(sizes), 8, seed), unit_rows(queries, 8, seed + 1)
    classes, k = torch.arange(len(bank)), max(1, round(share_of_k * len(bank)))  # a class each: rows are told apart
    similarities = (wanted.double() @ bank.double().T).sort(dim=1, descending=True)
    gaps = similarities.values.diff(dim=1).abs()
    assume(gaps.numel() == 0 or gaps.min() > 1e-6)  # else float32 may honestly order them otherwise
    shards = [
        search_index(create_index(rows, k, None), own_classes, wanted, k)
        for rows, own_classes in zip(bank.split(sizes), classes.split(sizes), strict=True)
    ]
    assert [part.classes.shape for part in shards] == [(queries, min(k, size)) for size in sizes]
    merged = nearest_candidates(Neighbours(*(torch.cat(parts, dim=1) for parts in zip(*shards, strict=True))), k)
    assert torch.equal(merged.classes, similarities.indices[:, :k])
    torch.testing.assert_close(merged.cosines.double(), similarities.values[:, :k], rtol=0, atol=1e-6)


@pytest.mark.parametrize("protocol", [EXP, MAJORITY])
def test_all_lists_probed_give_the_exact_result(protocol: KnnProtocol) -> None:
    bank, queries = clusters(2000, 1), clusters(600, 2)
    exact = evaluate_knn(*bank, *queries, protocol, class_count=10)
    assert exact.recall is None
    for probes in (179, 10**6):  # all of round(4 * sqrt(2000)), and more than there are
        result = evaluate_knn(*bank, *queries, protocol, class_count=10, probes=probes)
        assert result == replace(exact, recall=1.0)
    assert 0.5 < exact.top1 < 0.95


def test_recall_rises_with_the_probes_and_is_the_same_again() -> None:
    bank, queries = clusters(3000, 3), clusters(500, 4)
    results = [evaluate_knn(*bank, *queries, EXP, probes=probes) for probes in (1, 4, 16, 64)]
    recalls = [result.recall for result in results]
    assert recalls == sorted(set(recalls))
    assert 0.1 < recalls[0] < 0.6
    assert recalls[-1] > 0.95
    assert evaluate_knn(*bank, *queries, EXP, probes=4) == results[1]
    assert str(results[-1]).endswith(f"bank 3,000, queries 500; IVF search, recall {recalls[-1]:.2%})")


def test_recall_is_counted_on_evenly_spaced_queries() -> None:
    bank, queries = unit_rows(400, 8, 5), unit_rows(2 * RECALL_QUERIES + 1, 8, 6)
    index = create_index(bank, 10, 2)
    sample = queries[::3]
    rows = index.search(sample.contiguous().numpy(), 10)[1]
    exact = (sample @ bank.T).topk(10, dim=1).indices.tolist()
    found = sum(len({*mine} & {*all_of_them}) for mine, all_of_them in zip(rows.tolist(), exact, strict=True))
    assert measure_recall(index, bank, queries, 10) == pytest.approx(found / (10 * len(sample)), abs=1e-3)
    assert 0.1 < found / (10 * len(sample)) < 0.9


def test_equal_rows_stand_for_each_other() -> None:
    bank = torch.eye(4).repeat(50, 1)
    assert measure_recall(create_index(bank, 7, 56), bank, torch.eye(4), 7) == 1.0


@pytest.mark.parametrize("protocol", [EXP, MAJORITY])
def test_lists_of_fewer_than_k_rows_give_fewer_votes(protocol: KnnProtocol) -> None:
    # two groups of 3, far apart; the lists of one hold nothing of the other
    angles = torch.tensor([0.0, 0.01, 0.02, 3.0, 3.01, 3.02])
    bank = torch.stack([angles.cos(), angles.sin()], dim=1)
    neighbours = search_index(create_index(bank, 6, 1), torch.arange(6), bank, 6)
    missing = neighbours.classes == MISSING
    assert missing.any(dim=1).all()
    assert not missing[:, 0].any()
    # class 1 has more votes in all, and none in the lists of the first group
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    result = evaluate_knn(bank, labels, bank, labels, replace(protocol, k=6), probes=1)
    assert (result.top1, result.top5) == (1.0, 1.0)
    never = evaluate_knn(bank, labels, bank, 1 - labels, replace(protocol, k=6), probes=1)
    assert (never.top1, never.top5) == (0.0, 0.0)
    assert result.recall == pytest.approx(1 - missing.double().mean().item())


def test_small_banks_have_lists_too(capfd: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for count in (1, 2, 3, 17):
        bank, labels = unit_rows(count, 4, count), torch.arange(count)
        result = evaluate_knn(bank, labels, bank, labels, replace(EXP, k=1), probes=1)
        assert (result.top1, result.recall) == (1.0, 1.0)
        assert faiss.extract_index_ivf(create_index(bank, 1, 1)).nlist == min(count, round(4 * math.sqrt(count)))
        seen += 1
    assert seen == 4
    assert capfd.readouterr().err == ""


def test_probes_are_refused_where_they_mean_nothing() -> None:
    bank, labels = clusters(30, 7)
    with pytest.raises(ValueError, match="probes is 0; pass at least 1 list to search, or None"):
        evaluate_knn(bank, labels, bank, labels, EXP, probes=0)
    with pytest.raises(ValueError, match="probes is 4 and the bank is sharded; pass probes=None"):
        evaluate_knn(bank, labels, bank, labels, EXP, probes=4, sharded=True)


def test_one_process_holds_the_only_shard() -> None:
    bank, queries = clusters(300, 8), clusters(100, 9)
    assert evaluate_knn(*bank, *queries, EXP, sharded=True) == evaluate_knn(*bank, *queries, EXP)


def test_queries_are_searched_in_chunks() -> None:
    bank, queries = unit_rows(30, 4, 10), unit_rows(2 * QUERIES_PER_SEARCH + 7, 4, 11)
    index, classes = create_index(bank, 3, None), torch.arange(30)
    for iterate in (iterate_neighbours, iterate_over_shards):
        chunks = list(iterate(index, classes, queries, 3))
        assert [len(chunk.classes) for chunk in chunks] == [QUERIES_PER_SEARCH, QUERIES_PER_SEARCH, 7]
        assert torch.equal(torch.cat([chunk.classes for chunk in chunks]), (queries @ bank.T).topk(3, dim=1).indices)


@pytest.mark.parametrize("protocol", [replace(EXP, k=9), replace(MAJORITY, k=9)])
def test_predicted_classes_are_those_that_the_score_counts(protocol: KnnProtocol) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(count, 3, generator=generator) for count in (60, QUERIES_PER_SEARCH + 88))
    labels, query_labels = (torch.randint(-2, 3, (len(rows),), generator=generator) for rows in (bank, queries))
    predicted = predict_classes(bank, labels, queries, protocol)
    result = evaluate_knn(bank, labels, queries, query_labels, protocol)
    assert 0 < result.top1 < 1
    assert (predicted == query_labels).double().mean().item() == result.top1
    for label, share in result.per_class.items():
        assert (predicted == label)[query_labels == label].double().mean().item() == share
    with pytest.raises(ValueError, match="1 of 60 bank features are not finite"):
        predict_classes(bank.index_fill(0, torch.tensor([4]), torch.nan), labels, queries, protocol)
