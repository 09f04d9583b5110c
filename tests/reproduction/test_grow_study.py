"""The study of growing on the embedded digits: its arms, and that it goes on where it ended."""

import json

import pytest

from reproduction import grow_study


@pytest.mark.slow
def test_every_arm_is_run_once_and_ends_whole(tmp_path, capsys):
    given = ["--data", "digits", "--image-px", "8", "--images", "192", "--folder", str(tmp_path), "--seeds", "1"]
    given += ["--epochs", "2", "--rounds", "2", "--start-share", "0.4", "--score-batches", "1"]
    grow_study.main(given)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    rows = {row["arm"]: row for row in map(json.loads, lines)}
    assert [*rows] == [*grow_study.ARMS]
    opened = {arm: [name for names in row["opened"] for name in names] for arm, row in rows.items()}
    for arm, row in rows.items():
        stays = arm == "whole" or arm in grow_study.EQUAL_TIME
        assert (opened[arm] == []) == stays
        assert stays or (row["shares"][-1] == 1 and row["shares"][0] < 0.8 and len(opened[arm]) >= 5)
        assert row["seconds"] > 0
    assert {*opened["gradmax"]} == {*opened["random"]} == {*opened["uniform"]}, "all start alike and end whole"
    share = rows["gradmax"]["seconds"] / rows["whole"]["seconds"]
    assert rows["whole_equal_time"]["epochs"] == max(1, round(2 * share))
    assert rows["small_equal_time"]["epochs"] >= rows["half_equal_time"]["epochs"]
    grow_study.main(given)
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == lines
    capsys.readouterr()
