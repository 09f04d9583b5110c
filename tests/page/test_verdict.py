"""The verdict on a run: each rule with both outcomes, and what it says of runs that went well and badly."""

import json
from pathlib import Path
from typing import Any

import pytest
import short_runs

from ssl_adapt.page.verdict_rules import (
    Spread,
    check_best,
    check_collapse,
    check_collapsed_loss,
    check_fall,
    check_learning,
    check_memorised,
    check_width,
    check_zero_loss,
    describe_trend,
)
from ssl_adapt.page.verdict_section import judge_with_labels, judge_without_labels, verdict_section, what_labels_say
from ssl_adapt.recipe import load_recipe, save_recipe
from ssl_adapt.runs.run_record import RunRecord, read_run

UNTRAINED = Spread(rank_me=5.6, feature_std=0.03)


def write_run(folder: Path, recipe: str, *events: dict[str, Any], **result: Any) -> RunRecord:
    folder.mkdir()
    save_recipe(load_recipe(recipe), folder / "recipe.yaml")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    if result:
        (folder / "result.json").write_text(json.dumps(result))
    return read_run(folder)


def epochs(*losses: float) -> list[dict[str, Any]]:
    return [{"event": "epoch", "step": 10 * number, "loss": loss} for number, loss in enumerate(losses, start=1)]


def measured(event: str, rank_me: float, feature_std: float, step: int = 0, **more: float) -> dict[str, Any]:
    return {"event": event, "step": step, "rank_me": rank_me, "feature_std": feature_std, **more}


# --- the rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank_me", "feature_std", "level"),
    [(20.3, 0.17, "right"), (1.9, 0.17, "wrong"), (20.3, 0.007, "wrong"), (2.0, 0.0075, "right")],
)
def test_collapsed_features_have_rank_below_2_or_a_quarter_of_the_spread(
    rank_me: float, feature_std: float, level: str
) -> None:
    assert check_collapse(UNTRAINED, Spread(rank_me, feature_std)).level == level


def test_without_a_network_before_the_rank_alone_tells() -> None:
    assert check_collapse(None, Spread(20.0, 1e-6)).level == "right"
    assert check_collapse(None, Spread(1.0, 0.1)).level == "wrong"


@pytest.mark.parametrize(
    ("now", "level", "words"),
    [
        (Spread(20.3, 0.17), "right", "the features fill 20.3 directions"),
        (Spread(5.5, 0.17), "unclear", "RankMe fell from 5.6 to 5.5, below the untrained network"),
        (Spread(3.4, 0.02), "unclear", "RankMe fell from 5.6 to 3.4 and the spread fell from 0.03 to 0.02"),
    ],
)
def test_narrower_features_than_before_training_ask_for_a_look(now: Spread, level: str, words: str) -> None:
    check = check_width(UNTRAINED, now, "the untrained network")
    assert check.level == level
    assert check.because.startswith(words)


@pytest.mark.parametrize(
    ("losses", "level"), [([15.6255, 15.6254], "unclear"), ([5.8, 4.1], "right"), ([1, 2], "unclear")]
)
def test_a_loss_that_has_not_fallen_by_a_hundredth(losses: list[float], level: str) -> None:
    assert check_fall(losses).level == level


def test_nt_xent_of_one_point_is_log_of_the_other_views() -> None:
    assert check_collapsed_loss([6.2, 6.15], 6.24).level == "wrong"
    assert check_collapsed_loss([6.2, 4.0], 6.24).level == "right"


def test_a_loss_of_almost_0_may_be_that_of_a_constant() -> None:
    assert check_zero_loss([2.0, 0.03]).level == "unclear"
    assert check_zero_loss([2.8, 1.7]).level == "right"


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([5, 4, 3, 2], "its trend can't be told from 4 epochs"),
        ([5], "its trend can't be told from 1 epoch"),
        ([5, 4, 3.2, 3.01, 3.0], "it is flat at the end"),
        ([5, 4.5, 4, 3.5, 3], "it is still falling"),
        ([5, 3, 2, 2, 4], "it rises at the end"),
        ([3, 3, 3, 3, 3], "it is flat at the end"),
    ],
)
def test_the_trend_is_that_of_the_last_fifth(losses: list[float], words: str) -> None:
    assert describe_trend(losses) == words


def test_the_rules_for_training_with_labels() -> None:
    assert check_learning(0.4, 0.39, 0.1).level == "right"
    assert check_learning(0.11, 0.09, 0.1).level == "wrong"
    assert check_memorised(0.5, 0.24).level == "unclear"
    assert check_memorised(1.3, 0.51).level == "right"
    assert check_best(0.40, 0.43, 100, 0.01).level == "unclear"
    assert check_best(0.425, 0.43, 100, 0.01).level == "right"


# --- runs -------------------------------------------------------------------------------------------------


def test_the_worst_rule_decides_and_the_sentence_says_why(tmp_path: Path) -> None:
    before, losses = measured("untrained", 5.6, 0.03), epochs(5, 4.5, 4, 3.5, 3)
    well = write_run(tmp_path / "well", "quickstart", before, *losses, measured("result", 20, 0.17, 50), steps=50)
    bad = write_run(tmp_path / "bad", "quickstart", before, *losses, measured("evaluation", 1.1, 0.2, 40))
    first, second = judge_without_labels(well), judge_without_labels(bad)
    assert first is not None
    assert first.level == "right"
    assert first.sentence == (
        "No sign of collapse: the features fill 20.0 directions (RankMe, 5.6 in the untrained network) and their "
        "spread grew from 0.03 to 0.17, and the loss fell from 5 to 3; it is still falling."
    )
    assert second is not None
    assert second.level == "wrong"
    assert second.sentence.startswith(
        "Collapsed so far: the features differ along hardly one direction (RankMe 1.10), "
    )
    assert {check.level for check in second.checks} == {"wrong", "right", "unclear"}


def test_there_is_no_verdict_before_anything_is_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "quickstart", measured("untrained", 5.6, 0.03), *epochs(5, 4))
    assert verdict_section(run) is None


def test_labels_have_a_word_where_there_are_some(tmp_path: Path) -> None:
    def run(name: str, score: float) -> RunRecord:
        before = measured("untrained", 5, 0.03, knn_top1=0.6)
        pixels = {"event": "raw_pixels", "step": 0, "knn_top1": 0.9}
        return write_run(tmp_path / name, "quickstart", pixels, before, measured("result", 9, 0.1, 50, knn_top1=score))

    below = "kNN top-1 is 50.0%, no better than the untrained network (60.0%) and raw pixels (90.0%)."
    between = "kNN top-1 is 70.0%, better than the untrained network (60.0%), but no better than raw pixels (90.0%)."
    assert what_labels_say(run("below", 0.5)) == (below, "unclear")
    assert what_labels_say(run("between", 0.7)) == (between, "right")


def test_training_with_labels_is_judged_by_accuracy(tmp_path: Path) -> None:
    def events(accuracy: float) -> list[dict[str, Any]]:
        return [
            {"event": "untrained", "step": 0, "accuracy_top1": 0.1}, *epochs(2.3, 1.5, 1.2, 1.1, 1.1),
            {"event": "result", "step": 50, "accuracy_top1": accuracy},
        ]  # fmt: skip

    def level(name: str, accuracy: float) -> str:
        verdict = judge_with_labels(
            write_run(tmp_path / name, "supervised_resnet20", *events(accuracy), test_images=1000)
        )
        assert verdict is not None
        return verdict.level

    assert [level("a", 0.5), level("b", 0.11)] == ["right", "wrong"]


def test_a_run_that_diverged_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_run(folder, "quickstart", measured("untrained", 5, 0.03), *epochs(5, 4), measured("evaluation", 9, 0.1, 20))
    (folder / "status.json").write_text('{"state": "failed", "reason": "DivergedError: the loss is not finite"}')
    verdict = judge_without_labels(read_run(folder))
    assert verdict is not None
    assert (verdict.level, verdict.sentence[:9]) == ("wrong", "Diverged:")


def test_real_runs_that_learn_and_that_collapse_are_told_apart(tmp_path: Path) -> None:
    """The second one's weights decay faster than they learn."""
    few = ["adapt=null", "train.epochs=5", "data.train_images=256", "data.batch_size=64", "knn.k=20", "train.lr=1e-2"]
    levels = []
    for name, arguments in {"learns": [], "collapses": ["train.weight_decay=100"]}.items():
        short_runs.run(tmp_path / name, *few, *arguments)
        verdict = judge_without_labels(read_run(tmp_path / name))
        assert verdict is not None
        levels.append(verdict.level)
    assert levels == ["right", "wrong"]
