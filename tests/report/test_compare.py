"""Groups of runs compared: statistics, what differs, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from script_calls import run_command

from ssl_adapt.errors import UserError
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.report.compare_groups import compare_groups, find_group
from ssl_adapt.report.paired_test import holm, paired_difference


def test_holm_is_the_step_down_correction():
    """By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and never below what came before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    corrected = holm([math.nan, 0.01])
    assert math.isnan(corrected[0])
    assert corrected[1] == 0.02


def test_paired_differences_are_those_of_scipy():
    ours, theirs = {1: 3.0, 2: 4.5, 3: 5.0, 4: 9.0}, {1: 2.0, 2: 4.0, 3: 3.5, 5: 1.0}
    mean, half, p, seeds = paired_difference(ours, theirs)
    test = stats.ttest_rel([3.0, 4.5, 5.0], [2.0, 4.0, 3.5])
    interval = test.confidence_interval()
    assert (mean, p, seeds) == (pytest.approx(1.0), pytest.approx(test.pvalue), 3)
    assert (mean - half, mean + half) == pytest.approx((interval.low, interval.high))
    assert paired_difference({1: 2.0}, {1: 1.0})[0] == 1.0
    assert math.isnan(paired_difference({}, {})[0])
    assert math.isnan(paired_difference({1: 1.1, 2: 2.1}, {1: 1.0, 2: 2.0}).p_value), "no variance to test against"


# --- groups -----------------------------------------------------------------------------------------------

SCORES = {"plain": [0.40, 0.42, 0.41], "adapted": [0.45, 0.46, 0.48], "third": [0.41, 0.40, 0.43]}


def write_run(folder: Path, score: float | None, protocol: str = "kNN, k 20", **values: Any) -> Path:
    folder.mkdir(parents=True)
    save_recipe(load_recipe("quickstart", values), folder / "recipe.yaml")
    result = {"knn_top1": {"result": score}, "protocol": protocol, "test_images": 500, "parameters": 10, "macs": 100}
    (folder / "result.json").write_text(json.dumps(result))
    lines = [{"event": "epoch", "step": 1, "seconds": 10.0}, {"event": "choice", "step": 1, "seconds": 2.0}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, scores in SCORES.items():
        for seed, score in enumerate(scores, start=1):
            adapt = {"adapt": None} if name == "plain" else {}
            write_run(tmp_path / f"{name}_seed={seed}", score, seed=seed, **adapt, **{"data.workers": 4 + seed})
    return tmp_path


def groups(folder: Path, *names: str) -> dict[str, list[Any]]:
    return {name: find_group(name, f"{folder}/{name}_seed=*") for name in names}


def test_runs_are_paired_by_seed_and_compared_with_the_first_group(runs: Path) -> None:
    found = compare_groups(groups(runs, "plain", "adapted", "third"))
    assert found.seeds == (1, 2, 3)
    plain, adapted, _ = found.groups
    assert (adapted.mean, adapted.sd) == (pytest.approx(46.3333333), pytest.approx(1.52752523))
    assert (plain.seconds, plain.parameters, plain.macs) == (12, 10, 100)
    first, second = found.differences
    test = stats.ttest_rel([45.0, 46.0, 48.0], [40.0, 42.0, 41.0])
    interval = test.confidence_interval()
    assert (first.group, first.against, first.pairs) == ("adapted", "plain", 3)
    assert (first.low, first.high) == pytest.approx((interval.low, interval.high))
    assert first.p_value == pytest.approx(test.pvalue)
    assert first.p_holm == pytest.approx(2 * test.pvalue)
    assert second.p_holm == pytest.approx(second.p_value)
    assert found.recipe.keys() == {"adapt"}, "seed, workers and where a run lies are no difference"
    assert found.recipe["adapt"]["plain"] is None
    assert found.score_name == "kNN top-1"


def test_one_seed_has_a_difference_and_no_interval(runs: Path) -> None:
    found = compare_groups({name: find_group(name, f"{runs}/{name}_seed=1") for name in ("plain", "adapted")})
    [difference] = found.differences
    assert difference.mean == pytest.approx(5)
    assert (difference.low, difference.high, difference.p_value, difference.p_holm) == (None, None, None, None)
    assert found.groups[0].sd is None


def test_what_changes_with_the_seed_is_shown_as_such(tmp_path: Path) -> None:
    for seed in (1, 2):
        for name, lr in (("a", 0.1), ("b", 0.2)):
            weights = {"model.weights": f"runs/{seed}", "train.lr": lr}
            write_run(tmp_path / f"{name}_seed={seed}", 0.4, seed=seed, **weights)
    found = compare_groups(groups(tmp_path, "a", "b"))
    assert found.recipe == {"train.lr": {"a": 0.1, "b": 0.2}}, "the weights are the same for equal seeds"
    write_run(tmp_path / "b_seed=3", 0.4, seed=3, **{"train.lr": 0.3})
    write_run(tmp_path / "a_seed=3", 0.4, seed=3, **{"train.lr": 0.1})
    assert compare_groups(groups(tmp_path, "a", "b")).recipe["train.lr"] == {"a": 0.1, "b": "0.2, 0.3"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "kNN, k 200"}, r"are not measured alike: .*plain_seed=1 .*kNN, k 20\".*adapted_seed=4 .*k 200"),
        ({"data.name": "cifar10"}, r"are not measured alike: .*on digits.*on cifar10"),
        ({"score": None}, r"adapted_seed=4 has no score yet: wait"),
        ({"seed": 3}, r"group adapted has two runs of seed 3: .*adapted_seed=3.*adapted_seed=4"),
        ({}, r"seed 4 is in adapted and not in plain: run it there too, or name the runs without it"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: Path, change: dict[str, Any], said: str) -> None:
    write_run(runs / "adapted_seed=4", **{"score": 0.5, "seed": 4, **change})
    with pytest.raises(UserError, match=said):
        compare_groups(groups(runs, "plain", "adapted"))


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_prints_groups_differences_and_keys(runs: Path) -> None:
    output = run_command("compare", f"plain={runs}/plain_*", f"adapted={runs}/adapted_*")
    assert output.code == 0, output.err
    assert "kNN top-1 in %, kNN, k 20; seeds 1, 2, 3" in output.out
    assert ["plain", "3", "41.00", "±", "1.00", "10", "100", "12", "s"] in [
        line.split() for line in output.out.splitlines()
    ]
    [line] = [line.split() for line in output.out.splitlines() if line.startswith("adapted - plain")]
    test = stats.ttest_rel([45.0, 46.0, 48.0], [40.0, 42.0, 41.0])
    low, high = test.confidence_interval()
    assert line[3:] == ["+5.33", f"{low:+.2f}", "to", f"{high:+.2f}", f"{test.pvalue:.3f}"]
    assert output.out.splitlines()[-1].startswith("adapt   null   sharing full, epochs 1,")


def test_the_command_prints_json(runs: Path) -> None:
    output = run_command("compare", f"plain={runs}/plain_*", f"adapted={runs}/adapted_*", "json=true")
    found = json.loads(output.out)
    assert [group["scores"]["2"] for group in found["groups"]] == [42, 46]
    assert found["differences"][0]["against"] == "plain"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a=x"], "compare needs two groups of runs: type ssl-adapt compare NAME=RUNS OTHER=RUNS"),
        (["a=nowhere*", "b=x"], "a=nowhere*: there is no run there"),
        (["a=x", "a=y"], "a is given twice"),
        (["a"], "argument 'a' has no '=': type NAME=RUNS"),
        (["a=x", "b=y", "json=yes"], "json: got 'yes', expected true or false"),
    ],
)
def test_the_command_says_what_to_type(arguments: list[str], said: str) -> None:
    output = run_command("compare", *arguments)
    assert output.code == 2
    assert said in output.err
