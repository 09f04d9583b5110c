"""NT-Xent over real processes is that of one process with the whole batch."""

from typing import Any

import pytest
import torch
from forked import run_processes
from processes_nt_xent import CASES, SIZES, create_network, draw_images, draw_projections, main

from ssl_adapt import nt_xent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """number of processes -> what each of them found."""
    folder = tmp_path_factory.mktemp("nt_xent")
    for count in CASES:
        ended = run_processes(count, folder, main, folder)
        assert [process.code for process in ended] == [0] * count, ended
    return {count: [torch.load(folder / f"{index}_of_{count}.pt") for index in range(count)] for count in CASES}


def of_one(shares: tuple[int, ...], temperature: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    network = create_network()
    loss = nt_xent(*map(network, draw_images(sum(shares))), temperature=temperature)
    return loss.detach(), list(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize(("count", "index"), [(count, i) for count, cases in CASES.items() for i in range(len(cases))])
def test_several_processes_equal_one(found: dict[int, list[dict[str, Any]]], count: int, index: int) -> None:
    shares, temperature, _ = CASES[count][index]
    loss, gradients = of_one(shares, temperature)
    processes = [process["cases"][index] for process in found[count]]
    assert len(processes) == len(shares) == count
    mean = torch.stack([process["loss"] for process in processes]).mean()
    torch.testing.assert_close(mean, loss, rtol=1e-12, atol=0)
    for process in processes:
        torch.testing.assert_close(process["gradients"], gradients, rtol=1e-12, atol=1e-12 * largest(gradients))
    assert largest(gradients) > 1e-3
    # Were the shares losses of their own, without the others' negatives, the mean would be another.
    if min(shares) >= 2:
        views = zip(*(view.split(shares) for view in draw_images(sum(shares))), strict=True)
        network = create_network()
        apart = [nt_xent(network(a), network(b), temperature=temperature) for a, b in views]
        assert abs(torch.stack(apart).mean() - loss) > 1e-3 * loss


def largest(gradients: list[torch.Tensor]) -> float:
    return max(gradient.abs().max().item() for gradient in gradients)


@pytest.mark.parametrize("count", CASES)
@pytest.mark.parametrize("size", SIZES)
def test_projections_of_any_size(found: dict[int, list[dict[str, Any]]], count: int, size: float) -> None:
    """Those whose squares float32 does not hold, too: the loss is that of the same ones near 1, in float64."""
    near_1 = [view.double().requires_grad_() for view in draw_projections(1.0)]
    loss = nt_xent(*near_1, temperature=0.5)
    gradients = torch.autograd.grad(loss, near_1)
    processes = [process["sizes"][size] for process in found[count]]
    assert len(processes) == count
    mean = torch.stack([process["loss"] for process in processes]).double().mean()
    torch.testing.assert_close(mean, loss.detach(), rtol=1e-6, atol=0)
    for view, of_view in enumerate((size, 1 / size)):
        gradient = torch.cat([process["gradients"][view] for process in processes]).double() / count
        torch.testing.assert_close(of_view * gradient, gradients[view], rtol=1e-5, atol=1e-7)
    assert largest(list(gradients)) > 1e-2


def test_one_pair_in_all_processes_is_refused(found: dict[int, list[dict[str, Any]]]) -> None:
    refusals = [process["refusal"] for processes in found.values() for process in processes]
    assert len(refusals) == 5
    assert all(refusal.startswith("NT-Xent got 1 pair(s) and so no negatives; pass") for refusal in refusals)
