"""What each of several processes computes of NT-Xent for tests/objectives/test_nt_xent_processes.py."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_adapt.objectives.nt_xent import nt_xent_by_blocks
from ssl_adapt.processes import average, process_count, process_index

# number of processes -> lengths of their shares, temperature, rows of a block
CASES: dict[int, list[tuple[tuple[int, ...], float, int]]] = {
    3: [((3, 1, 4), 0.1, 3), ((2, 2, 2), 0.5, 512)],
    2: [
        ((5, 3), 0.5, 512),
        ((5, 3), 0.02, 3),
        ((4, 4), 0.1, 4),
        ((1, 7), 0.07, 3),
        ((1, 1), 0.5, 512),
        ((0, 2), 0.5, 3),
    ],
}

SIZES = (1.0, 1e20, 1e-20, 1e13)


def draw_images(pairs: int) -> tuple[Tensor, Tensor]:
    """Two views (pairs, 6) in float64; no two rows have the same size."""
    generator = torch.Generator().manual_seed(pairs)
    base = torch.randn(pairs, 6, generator=generator, dtype=torch.float64) + torch.arange(pairs)[:, None] / 5
    return base, base * 1.5 + 0.4 * torch.randn(pairs, 6, generator=generator, dtype=torch.float64)


def create_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def measure(shares: tuple[int, ...], temperature: float, block_rows: int) -> dict[str, Any]:
    """This process's loss, and the parameters' gradients averaged as DDP does."""
    network = create_network()
    view_a, view_b = (view.split(shares)[process_index()] for view in draw_images(sum(shares)))
    loss = nt_xent_by_blocks(network(view_a), network(view_b), temperature, block_rows)
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    average(gradients)
    return {"loss": loss.detach(), "gradients": gradients}


def draw_projections(size: float) -> tuple[Tensor, Tensor]:
    """Projections (6, 4) in float32, the first ones of that size and the second ones of its inverse, and a row of 0."""
    generator = torch.Generator().manual_seed(1)
    proj_a, proj_b = torch.randn(2, 6, 4, generator=generator).unbind()
    proj_b[1] = 0
    return size * proj_a, proj_b / size


def measure_size(size: float, block_rows: int) -> dict[str, Any]:
    """The loss, and the gradients of this process's projections, of which the first one has one pair."""
    count = process_count()
    shares = [1, *([1] * (count - 2)), 7 - count]
    projections = [view.split(shares)[process_index()].requires_grad_() for view in draw_projections(size)]
    loss = nt_xent_by_blocks(*projections, 0.5, block_rows)
    return {"loss": loss.detach(), "gradients": torch.autograd.grad(loss, projections)}


def refusal() -> str:
    """What the error says where all processes together have one pair."""
    try:
        pairs = int(process_index() == 0)
        nt_xent_by_blocks(torch.ones(pairs, 4), torch.ones(pairs, 4), 0.5, 3)
    except ValueError as error:
        return str(error)
    return "none"


def main(folder: Path) -> None:
    """What this process finds, as a file."""
    found = {
        "cases": [measure(*case) for case in CASES[process_count()]],
        "refusal": refusal(),
        "sizes": {size: measure_size(size, 2) for size in SIZES},
    }
    torch.save(found, folder / f"{process_index()}_of_{process_count()}.pt")
