"""The suite: which comparisons are run, at which sizes, one after the other."""

import json
from collections.abc import Callable, Iterator, Mapping

import torch
from rich.console import Console

from benchmarks.bench_options import BenchOptions
from benchmarks.environment import describe_environment
from benchmarks.family_comparison import compare_families
from benchmarks.knn_comparison import compare_knn
from benchmarks.nt_xent_comparison import compare_nt_xent, growth_to_json_values, measure_growth, show_growth
from benchmarks.step_comparison import compare_simclr_steps, compare_supervised_steps
from benchmarks.timing import WARM_UP_ROUNDS, Comparison, time_contenders
from benchmarks.timing_report import show_environment, show_result, to_json_values
from benchmarks.view_comparison import compare_views

# Lazily, so that only one comparison's networks and features are in memory.
Suite = Mapping[str, Callable[[torch.device], Iterator[Comparison]]]


def _steps(device: torch.device) -> Iterator[Comparison]:
    for batch_size in (96, 256):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            yield compare_supervised_steps(batch_size, device=device, memory_format=memory_format)
    yield compare_simclr_steps(256)


SUITE: Suite = {
    "views": lambda device: iter([compare_views(512, device=device)]),
    "step": _steps,
    "nt_xent": lambda device: (compare_nt_xent(size, device=device, with_memory=True) for size in (512, 2048)),
    "knn": lambda device: iter([compare_knn(20_000, 2_000, device=device)]),
    "adaptable": compare_families,
}


def run_suite(options: BenchOptions, suite: Suite = SUITE) -> None:
    """Time the groups of the options, print a table after each comparison, and write the JSON at the end.

    Raises:
        DisagreementError: if contenders that must agree do not.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    environment = describe_environment(device)
    console = Console(highlight=False)
    show_environment(console, environment)
    results = []
    for group in options.only:
        for comparison in suite[group](device):
            result = time_contenders(comparison, repeats=options.repeats, device=device)
            show_result(console, result)
            results.append({"group": group, **to_json_values(result)})
    growth = {}
    if options.growth is not None:
        sizes = [512 * 2**power for power in range((options.growth // 512).bit_length())]
        growth = measure_growth(sizes, device=device)
        show_growth(console, growth)
    if options.json_path is not None:
        report = {
            "environment": environment,
            "repeats": options.repeats,
            "warm_up_rounds": WARM_UP_ROUNDS,
            "comparisons": results,
            "nt_xent_growth": growth_to_json_values(growth),
        }
        options.json_path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        console.print(f"\nwritten: {options.json_path}")
