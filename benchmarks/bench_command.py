"""Times this package and other libraries: `ssl-adapt bench [only=GROUP,...] [repeats=N] [json=PATH] [growth=B]`."""

from collections.abc import Sequence

from benchmarks.bench_options import GROUPS, BenchOptions
from ssl_adapt.recipe.help import describe_options
from ssl_adapt.recipe.read import read_options

USAGE = """\
usage: ssl-adapt bench [only=GROUP,...] [repeats=N] [json=PATH] [growth=B]

Times this package and other libraries at the same work, in turns, after a warm-up.
It runs on the GPU if there is one; CUDA_VISIBLE_DEVICES= (empty) keeps it on the CPU.

Groups
""" + "".join(f"  {name:<14}{meaning}\n" for name, meaning in GROUPS.items())


def help_text() -> str:
    """The text of --help."""
    return describe_options(USAGE, BenchOptions)


def run(arguments: Sequence[str]) -> None:
    """Time the groups, print the figures and write them."""
    options = read_options(BenchOptions, arguments)
    from benchmarks.suite import run_suite

    run_suite(options)
