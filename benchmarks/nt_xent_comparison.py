"""Comparison of NT-Xent, forward and backward: ours, lightly's, and the plain logsumexp form; how each grows."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.timing import Comparison, DisagreementError
from ssl_adapt.objectives.nt_xent import nt_xent

TEMPERATURE = 0.5
TOLERANCE = 1e-4  # relative; float32 rounding over the largest batch is far below
DIM = 128
MIB = 2**20
MEMORY_LIMIT_MIB = 6 * 1024

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Call:
    """One forward and backward pass: how long it took, and its peak of memory, None where that cannot be read."""

    seconds: float
    peak_mib: float | None


def create_losses() -> dict[str, Loss]:
    """Name -> loss of two projections (B, D); lightly's only where it is installed."""
    losses: dict[str, Loss] = {
        "ours": lambda a, b: nt_xent(a, b, temperature=TEMPERATURE),
        "plain logsumexp": plain_nt_xent,
    }
    lightly_nt_xent = find_lightly_nt_xent()
    return losses if lightly_nt_xent is None else {**losses, "lightly's NTXentLoss": lightly_nt_xent}


def compare_nt_xent(batch_size: int, *, device: torch.device, dim: int = DIM, with_memory: bool = False) -> Comparison:
    """The loss of a batch of pairs and its gradient to both projections; the peak of memory stands in a note."""
    calls = {name: create_call(loss, batch_size, device, dim) for name, loss in create_losses().items()}
    notes: tuple[str, ...] = ()
    if len(calls) == 2:
        notes = ("lightly's NTXentLoss is left out, as lightly is not installed: pip install lightly",)
    if with_memory:
        peaks = {name: measure_apart(name, batch_size, device, dim).peak_mib for name in calls}
        notes += ("peak memory of one call: " + ", ".join(f"{name} {_show(peak)} MiB" for name, peak in peaks.items()),)
    return Comparison(
        name=f"nt_xent: batch {batch_size}, {dim}-d, forward and backward",
        shows="how the form that keeps gradients exact, and makes no matrix of all similarities, compares",
        contenders=calls,
        unit="pairs",
        units_per_call=batch_size,
        notes=notes,
        check=check_losses,
    )


def create_call(loss: Loss, batch_size: int, device: torch.device, dim: int) -> Callable[[], float]:
    """A call that gives the loss of random projections, the same for every contender, after its backward pass."""
    generator = torch.Generator().manual_seed(batch_size)
    proj_a, proj_b = (torch.randn(batch_size, dim, generator=generator).to(device).requires_grad_() for _ in range(2))

    def call() -> float:
        value = loss(proj_a, proj_b)
        torch.autograd.grad(value, (proj_a, proj_b))
        return value.item()

    return call


def measure_apart(name: str, batch_size: int, device: torch.device, dim: int = DIM) -> Call:
    """`measure_call`, on the CPU in a process of its own: memory that other calls left behind would hide the peak."""
    if device.type == "cuda":
        return measure_call(name, batch_size, device, dim, threads=torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure_call, name, batch_size, device, dim, torch.get_num_threads()).result()


def measure_call(name: str, batch_size: int, device: torch.device, dim: int, threads: int) -> Call:
    """Seconds and peak of memory of one call, beyond what the process had before; the projections are not in it.

    On the CPU the peak is that of the resident set, which Linux keeps and lets a process reset; on a GPU it is
    the allocator's (not run on one).
    """
    torch.set_num_threads(threads)
    loss = create_losses()[name]
    create_call(loss, 4, device, dim)()  # what is loaded or set up once does not count
    call = create_call(loss, batch_size, device, dim)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before_mib: float | None = torch.cuda.memory_allocated(device) / MIB
    else:
        before_mib = _reset_resident_peak_mib()
    start = time.perf_counter()
    call()  # ends with .item(), which waits for a GPU
    seconds = time.perf_counter() - start
    if before_mib is None:
        return Call(seconds, None)
    peak_mib = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else _resident_peak_mib()
    return Call(seconds, peak_mib - before_mib)


def measure_growth(sizes: Sequence[int], *, device: torch.device, dim: int = DIM) -> dict[str, dict[int, Call]]:
    """Contender -> batch size -> one call. A contender whose next call would pass the limit of memory ends there.

    A contender's memory is expected to grow with the square of the batch, as that of a matrix does, unless it
    is ours.
    """
    growth: dict[str, dict[int, Call]] = {}
    for name in create_losses():
        calls = growth.setdefault(name, {})
        for size in sizes:
            if name != "ours" and calls:
                last = max(calls)
                expected_mib = (calls[last].peak_mib or 0) * (size / last) ** 2
                if expected_mib > MEMORY_LIMIT_MIB:
                    break
            calls[size] = measure_apart(name, size, device, dim)
    return growth


def exponents(calls: Mapping[int, Call]) -> tuple[float, float | None]:
    """The slopes of log time and of log memory over log batch: 1 is linear growth, 2 quadratic."""
    sizes = np.log(list(calls))
    peaks = [call.peak_mib for call in calls.values() if call.peak_mib]
    seconds = float(np.polyfit(sizes, np.log([call.seconds for call in calls.values()]), 1)[0])
    return seconds, float(np.polyfit(sizes, np.log(peaks), 1)[0]) if len(peaks) == len(calls) else None


def show_growth(console: Console, growth: Mapping[str, Mapping[int, Call]]) -> None:
    """Print a row for each batch size, with seconds and MiB of each contender, and the exponents below."""
    console.print("\n[bold]nt_xent: growth with the batch, one call of forward and backward[/bold]")
    table = Table(header_style="dim", box=None, pad_edge=False)
    for column in ("images", *(f"{name}, {unit}" for name in growth for unit in ("s", "MiB"))):
        table.add_column(column, justify="right")
    for size in growth["ours"]:
        found = [calls.get(size) for calls in growth.values()]
        cells = [("left out", "-") if call is None else (f"{call.seconds:.3f}", _show(call.peak_mib)) for call in found]
        table.add_row(f"{size:,}", *(cell for pair in cells for cell in pair))
    slopes = [exponents(calls) for calls in growth.values()]
    table.add_row("exponent", *(_show(slope, 2) for pair in slopes for slope in pair))
    console.print(table)
    console.print(f"[dim]left out: more than {MEMORY_LIMIT_MIB / 1024:.0f} GiB of memory would be needed[/dim]")


def growth_to_json_values(growth: Mapping[str, Mapping[int, Call]]) -> list[dict[str, object]]:
    """A list of contenders, with what the table shows."""
    return [
        {
            "name": name,
            "batches": [{"size": n, "seconds": call.seconds, "peak_mib": call.peak_mib} for n, call in calls.items()],
            **dict(zip(("time_exponent", "memory_exponent"), exponents(calls), strict=True)),
        }
        for name, calls in growth.items()
    ]


def plain_nt_xent(proj_a: Tensor, proj_b: Tensor) -> Tensor:
    """NT-Xent, a scalar, as logsumexp over a row without its diagonal, minus the positive."""
    rows = F.normalize(torch.cat([proj_a, proj_b]), dim=1)
    similarities = rows @ rows.T / TEMPERATURE
    positives = torch.cat([similarities.diagonal(len(proj_a)), similarities.diagonal(-len(proj_a))])
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return (similarities.masked_fill(itself, -torch.inf).logsumexp(dim=1) - positives).mean()


def find_lightly_nt_xent() -> Loss | None:
    """lightly's loss at the same temperature, or None where lightly is not installed."""
    try:
        from lightly.loss import NTXentLoss  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        return None
    loss: Loss = NTXentLoss(temperature=TEMPERATURE)
    return loss


def check_losses(values: Mapping[str, float]) -> None:
    """Raises DisagreementError unless all losses are equal up to rounding."""
    expected = values["ours"]
    if not all(math.isclose(value, expected, rel_tol=TOLERANCE) for value in values.values()):
        raise DisagreementError(f"the NT-Xent losses differ: {dict(values)}")


def _show(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{value:,.{digits}f}"


def _reset_resident_peak_mib() -> float | None:
    """Forget the peak of this process's resident memory; what it has now, or None where there is no such file."""
    switch = Path("/proc/self/clear_refs")
    if not switch.exists():
        return None
    switch.write_text("5", encoding="ascii")
    return _resident_peak_mib()


def _resident_peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
