"""The benchmark of NT-Xent: peaks of memory, growth with the batch, and what is left out."""

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from benchmarks import nt_xent_comparison as bench
from benchmarks.bench_options import BenchOptions
from benchmarks.nt_xent_comparison import Call, compare_nt_xent, exponents, measure_apart, measure_call, measure_growth
from ssl_adapt.recipe.read import read_options

CPU = torch.device("cpu")


def test_the_peak_sees_matrices_and_ours_makes_none() -> None:
    matrix_mib = 4 * (2 * 2048) ** 2 / 2**20
    ours, plain = (
        measure_call(name, 2048, CPU, 16, torch.get_num_threads()).peak_mib for name in ("ours", "plain logsumexp")
    )
    assert plain > 2 * matrix_mib
    assert 0 <= ours < matrix_mib / 2


def test_exponents_of_power_laws() -> None:
    calls = {size: Call(seconds=3e-9 * size**2, peak_mib=0.1 * size) for size in (512, 1024, 4096)}
    assert exponents(calls) == pytest.approx((2, 1))
    assert exponents({size: replace(call, peak_mib=None) for size, call in calls.items()})[1] is None


def test_growth_leaves_out_what_would_pass_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(name: str, size: int, device: torch.device, dim: int) -> Call:
        asked.append((name, size))
        return Call(size / 1e3, float(size) if name == "ours" else size**2 / 1e3)

    monkeypatch.setattr(bench, "measure_apart", measure)
    growth = measure_growth([512, 1024, 2048, 4096], device=CPU)
    assert list(growth) == ["ours", "plain logsumexp", "lightly's NTXentLoss"]
    assert [list(calls) for calls in growth.values()] == [[512, 1024, 2048, 4096], [512, 1024, 2048], [512, 1024, 2048]]
    assert len(asked) == 10
    console = Console(file=io.StringIO(), width=200)
    bench.show_growth(console, growth)
    printed = console.file.getvalue()
    assert printed.count("left out") == 3  # two cells and the note
    (exponent_row,) = (line.split() for line in printed.splitlines() if "exponent" in line)
    assert exponent_row == ["exponent", "1.00", "1.00", "1.00", "2.00", "1.00", "2.00"]
    assert json.loads(json.dumps(bench.growth_to_json_values(growth), allow_nan=False))[1]["batches"][2]["size"] == 2048


def test_the_option() -> None:
    options = read_options(BenchOptions, ["only=nt_xent", "growth=32768"])
    assert (options.only, options.growth) == (("nt_xent",), 32768)
    with pytest.raises(ValueError, match="growth: got 512, expected integer >= 1024"):
        read_options(BenchOptions, ["growth=512"])


@pytest.mark.slow
def test_the_note_names_the_peak_of_every_contender() -> None:
    (note,) = compare_nt_xent(300, device=CPU, dim=8, with_memory=True).notes
    assert note.count(" MiB") == 3
    assert measure_apart("ours", 8, CPU, 4).seconds > 0
