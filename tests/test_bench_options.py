"""The command line of the benchmark."""

from pathlib import Path

import pytest
from script_calls import run_script

from benchmarks.options import GROUPS, HELP, Options, parse_options
from benchmarks.suite import SUITE


def test_the_suite_has_every_group_and_the_help_describes_it() -> None:
    assert tuple(SUITE) == tuple(GROUPS)
    assert len(GROUPS) == 5
    assert all(f"  {group} " in HELP for group in GROUPS)


def test_options() -> None:
    assert parse_options([]) == Options(tuple(GROUPS), 10, None)
    assert parse_options(["only=knn,views", "repeats=2", "json=b.json"]) == Options(("views", "knn"), 2, Path("b.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["only=view"], "only: got 'view', expected some of views,step,nt_xent,knn,adaptable"),
        (["only="], "only: got ''"),
        (["repeats=1"], "repeats: got '1', expected integer >= 2"),
        (["repeats=ten"], "repeats: got 'ten'"),
        (["json=no_such_folder/b.json"], "expected path of a file in a folder that exists"),
        (["json=."], "expected path of a file"),
        (["repeat=3"], "unknown key 'repeat'; did you mean 'repeats'"),
        (["views"], "argument 'views' has no '='"),
        (["repeats=3", "repeats=4"], "'repeats' is given twice"),
    ],
)
def test_wrong_options_say_what_to_type(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(arguments)


def test_script_prints_help_and_ends_with_a_sentence() -> None:
    assert run_script("--help", script="bench.py").out.strip() == HELP.strip()
    wrong = run_script("only=kn", script="bench.py")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith("error: only: got 'kn'")
