"""No layer, network or recipe goes wrong on another instruction set, as far as the rule of memory_format.py reaches."""

import platform

import pytest
import torch
from instruction_sets import INSTRUCTION_SETS, run_cases, wrong

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the checks are glibc's"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets are x86's"),
]
AT_LEAST = {"layers": 1500, "networks": 50, "families": 12, "recipes": 10}


def test_the_checks_see_one_byte_too_many():
    outcomes = run_cases("controls", "own")
    assert outcomes["one byte too many"] == "died"
    assert outcomes["no byte too many"].startswith("right")


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("kind", AT_LEAST)
def test_every_gradient_is_right(kind, instruction_set):
    """Run with `-rP` it tells the outcome of every network and recipe."""
    outcomes = run_cases(kind, instruction_set)
    if kind != "layers":
        print("\n".join(f"{name} | {instruction_set} | {outcome}" for name, outcome in outcomes.items()))
    assert len(outcomes) >= AT_LEAST[kind]
    assert not wrong(outcomes)


def test_the_named_convolutions_go_wrong():
    """The rule is needed yet. Where this is skipped oneDNN is another; if it is mended, the rule may go."""
    found = wrong(run_cases("named convolutions", "AVX2"))
    if "MKL-DNN v3.12.0" not in torch.__config__.show():
        pytest.skip(f"another oneDNN, in which {len(found)} of the named convolutions go wrong with AVX2")
    assert {int(name[1:].split(", ")[1]) for name in found} == {1, 2, 4, 7}
