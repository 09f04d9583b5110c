"""Two and three real processes measure what one does: kNN over shards, and both monitors."""

import math
import pickle
from typing import Any

import evaluation_run
import pytest
from forked import run_processes

from ssl_adapt.evaluation.knn import KnnResult

Found = dict[int, list[dict[str, Any]]]  # by number of processes: what each of them found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("processes")
    for count in (2, 3):
        ended = run_processes(count, folder, evaluation_run.main, folder)
        assert [process.code for process in ended] == [0] * count, ended
    return {
        processes: [pickle.loads((folder / f"{rank}_of_{processes}.pickle").read_bytes()) for rank in range(processes)]
        for processes in (2, 3)
    }


def comparable(result: KnnResult) -> dict[str, Any]:
    """The result with None for NaN, which is not equal to itself."""
    per_class = {label: None if math.isnan(top1) else top1 for label, top1 in result.per_class.items()}
    return {**vars(result), "per_class": per_class}


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", evaluation_run.PROTOCOLS)
def test_knn_over_shards_is_that_of_one_process(found: Found, name: str, processes: int) -> None:
    expected = comparable(evaluation_run.knn(name))
    assert [comparable(own[f"knn {name}"]) for own in found[processes]] == [expected] * processes
    assert 0.2 < expected["top1"] < 1
    assert list(expected["per_class"]) == [-2, 5, 30, 77, 10**9]
    assert (expected["per_class"][-2], expected["per_class"][77]) == (None, 0)
    assert (expected["bank_count"], expected["query_count"]) == ((901, 700) if name == "many chunks" else (101, 37))


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", ["digits", "fewer queries than processes", "every third row"])
def test_features_are_watched_as_by_one_process(found: Found, name: str, processes: int) -> None:
    measured = [own[f"monitor {name}"] for own in found[processes]]
    expected = evaluation_run.monitored(name)
    evaluation, first = expected.evaluation, measured[0].evaluation
    assert first.feature_std == pytest.approx(evaluation.feature_std, rel=1e-5)
    assert first.rank_me == pytest.approx(evaluation.rank_me, rel=1e-5)
    for own in measured:
        assert (own.evaluation.feature_std, own.evaluation.rank_me) == (first.feature_std, first.rank_me)
        for result, of_one in ((own.evaluation.score, evaluation.score), (own.pixels, expected.pixels)):
            assert (result is None) == (of_one is None) == (name == "every third row")
            if result is not None:
                assert comparable(result) == comparable(of_one)
    without_share = processes == 3 and name == "fewer queries than processes"  # that process sees one to learn the size
    assert sum(own.seen for own in measured) == expected.must_see + without_share
    assert expected.seen == expected.must_see


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", ["accuracy", "accuracy of two"])
def test_accuracy_is_that_of_one_process(found: Found, name: str, processes: int) -> None:
    measured = [own[f"monitor {name}"] for own in found[processes]]
    expected = evaluation_run.monitored(name).evaluation.score
    for own in measured:
        assert own.evaluation == measured[0].evaluation
        score = own.evaluation.score
        assert (score.top1, score.top5, score.count) == (expected.top1, expected.top5, expected.count)
        assert score.loss == pytest.approx(expected.loss, rel=1e-6)
    assert expected.count == (500 if name == "accuracy" else 2)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no queries", "query features have shape (0, 12); pass (N, D)"),
        ("class_count", "query labels run from 9 to 9 and class_count is 3"),
        ("not finite", "6 of 6 bank features are not finite"),
        ("dimensions", "bank features have 5 or 12 dimensions and query features 12"),
        ("logits", "the network gives 6 logits and the labels reach 9"),
    ],
)
def test_all_processes_raise_the_same_error(found: Found, what: str, message: str, processes: int) -> None:
    errors = {own[f"error {what}"] for own in found[processes]}
    assert len(errors) == 1
    assert errors.pop().startswith(message)


@pytest.mark.parametrize("processes", [2, 3])
def test_k_is_checked_against_the_whole_bank(found: Found, processes: int) -> None:
    rows = 6 * processes
    message = f"k is {rows + 1} but the bank holds {rows} features; set k to at most {rows}"
    assert [own["error k"] for own in found[processes]] == [message] * processes
