"""The command line of the benchmark."""

from pathlib import Path

import pytest
from script_calls import run_script

from benchmarks.bench_command import help_text
from benchmarks.bench_options import GROUPS, BenchOptions
from benchmarks.suite import SUITE
from ssl_adapt.recipe.read import read_options


def test_the_suite_has_every_group_and_the_help_describes_it() -> None:
    assert tuple(SUITE) == tuple(GROUPS)
    assert len(GROUPS) == 5
    assert all(f"  {group} " in help_text() for group in GROUPS)


def test_options() -> None:
    plain = read_options(BenchOptions, [])
    assert (plain.only, plain.repeats, plain.json_path) == (tuple(GROUPS), 10, None)
    asked = read_options(BenchOptions, ["only=knn,views", "repeats=2", "json=b.json"])
    assert (asked.only, asked.repeats, asked.json_path) == (("views", "knn"), 2, Path("b.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["only=view"], "only: got 'view', expected some of views,step,nt_xent,knn,adaptable"),
        (["only="], "only: got null"),
        (["repeats=1"], "repeats: got 1, expected integer >= 2"),
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
        read_options(BenchOptions, arguments)


def test_script_prints_help_and_ends_with_a_sentence() -> None:
    assert run_script("--help", script="bench.py").out.strip() == help_text().strip()
    wrong = run_script("only=kn", script="bench.py")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith("error: only: got 'kn'")
