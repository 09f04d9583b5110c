"""Rows of any finite size keep their direction: in `unit_rows`, NT-Xent, kNN and the measure of collapse."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_adapt.evaluation.collapse import feature_std
from ssl_adapt.evaluation.knn import KnnProtocol, evaluate_knn
from ssl_adapt.objectives.nt_xent import nt_xent_by_blocks
from ssl_adapt.unit_rows import unit_rows

pytestmark = pytest.mark.exactness

SIZES = [1e-43, 1e-38, 1e-20, 1e-13, 1e-11, 1e10, 1e19, 1e20, 1e37]


def with_gradient(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.detach().requires_grad_()
    result = unit_rows(rows)
    return result.detach(), torch.autograd.grad(result, rows, weights)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e9])
def test_usual_rows_are_those_of_normalize_to_the_bit(size: float, dtype: torch.dtype) -> None:
    """Beside rows that are not usual, and without."""
    torch.manual_seed(0)
    rows, weights = (size * torch.randn(50, 33)).to(dtype).requires_grad_(), torch.randn(50, 33)
    expected = F.normalize(rows.to(torch.promote_types(dtype, torch.float32)), dim=1)
    weights = weights.to(expected.dtype)
    gradient = torch.autograd.grad(expected, rows, weights)[0]
    for others in (rows[:0], torch.zeros_like(rows[:1]), 1e30 * rows[:2]):
        found = with_gradient(torch.cat([rows, others]), torch.cat([weights, weights[: len(others)]]))
        assert torch.equal(found[0][:50], expected)
        assert torch.equal(found[1][:50], gradient)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    exponents=st.lists(st.integers(-44, 37), min_size=1, max_size=5),
    dim=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_rows_of_any_size(exponents: list[int], dim: int, seed: int) -> None:
    """Values and gradients of float32 rows, each of its own size, against those in float64 of rows near 1."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.tensor(exponents, dtype=torch.float64)[:, None]
    rows = (torch.randn(len(sizes), dim, generator=generator).double() * sizes).float()
    weights = torch.randn(len(sizes), dim, generator=generator)
    largest = rows.abs().amax(1, keepdim=True).double()
    is_zero = largest == 0  # what float32 has rounded to zeros
    near_1 = (rows.double() / largest.where(~is_zero, 1)).requires_grad_()
    expected = near_1 / near_1.norm(dim=1, keepdim=True).where(~is_zero, 1)
    expected_gradient = torch.autograd.grad(expected, near_1, weights.double())[0] / largest
    found, gradient = with_gradient(rows, weights)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-7)
    exact = expected_gradient.where(~is_zero, 0)
    error = (gradient.double() - exact).norm(dim=1) * largest[:, 0]
    fits = exact.abs().amax(1) < 1e38  # that of the smallest rows is more than float32 holds, and infinite
    assert (error[fits] < 1e-6 * dim).all()
    assert not gradient.isnan().any()


def test_zeros_stay_and_get_no_gradient() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found, gradient = with_gradient(rows, torch.ones(2, 2))
    assert found.tolist() == [[0.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)]]
    assert gradient[0].tolist() == [0.0, 0.0]
    assert gradient[1].any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(value: float) -> None:
    rows = torch.tensor([[value, 1.0], [3.0, 4.0]])
    assert unit_rows(rows).isnan().any(dim=1).tolist() == [True, False]
    assert nt_xent_by_blocks(rows, rows, 0.5, 512).isnan()


@pytest.mark.parametrize("block_rows", [3, 512])
@pytest.mark.parametrize("size", SIZES)
def test_nt_xent_of_any_size(size: float, block_rows: int) -> None:
    """Loss and gradients against float64; the second views have the size 1 / size, as far as float32 holds that."""
    torch.manual_seed(0)
    base = torch.randn(12, 8)
    sizes = torch.ones(12, 1, dtype=torch.float64)
    sizes[1:6] = size
    sizes[6:9] = min(max(1 / size, 1e-38), 1e37)
    rows = (base.double() * sizes).float()
    near_1 = (rows.double() / sizes).requires_grad_()
    exact = nt_xent_by_blocks(*near_1.chunk(2), 0.5, 512)
    exact_gradient = torch.autograd.grad(exact, near_1)[0]
    rows.requires_grad_()
    loss = nt_xent_by_blocks(*rows.chunk(2), 0.5, block_rows)
    gradient = torch.autograd.grad(loss, rows)[0].double() * sizes
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    fits = (exact_gradient / sizes).abs().amax(1) < 1e38
    assert fits.sum() >= 7
    torch.testing.assert_close(gradient[fits], exact_gradient[fits], rtol=1e-4, atol=1e-7)


def test_nt_xent_of_zeros() -> None:
    """A projection of zeros has cosine 0 with all, and no gradient; the others' are those without its direction."""
    torch.manual_seed(0)
    proj_a, proj_b = torch.randn(2, 4, 5).unbind()
    proj_a[1] = 0
    for block_rows in (3, 512):
        rows = torch.cat([proj_a, proj_b]).requires_grad_()
        loss = nt_xent_by_blocks(*rows.chunk(2), 0.5, block_rows)
        cosines = F.normalize(rows.detach().double(), dim=1)
        logits = (cosines @ cosines.T / 0.5).fill_diagonal_(-math.inf)
        assert loss.item() == pytest.approx(F.cross_entropy(logits, torch.arange(8).roll(4)).item(), rel=1e-6)
        gradient = torch.autograd.grad(loss, rows)[0]
        assert not gradient[1].any()
        assert gradient[[0, *range(2, 8)]].any(dim=1).all()
        assert gradient.abs().max() < 10


@pytest.mark.parametrize(
    ("size", "dtype"), [*((size, torch.float32) for size in SIZES), (1e-60, torch.float64), (1e60, torch.float64)]
)
@pytest.mark.parametrize("probes", [None, 4])
def test_knn_of_any_size(size: float, dtype: torch.dtype, probes: int | None) -> None:
    """The score of bank and queries is that of the same features brought near 1."""
    torch.manual_seed(0)
    centres = torch.randn(5, 16)
    labels, query_labels = torch.arange(200) % 5, torch.arange(50) % 5
    bank, queries = (
        (size * (centres[of] + 1.5 * torch.randn(len(of), 16)).double()).to(dtype) for of in (labels, query_labels)
    )
    protocol = replace(KnnProtocol.preset("simclr_cifar"), k=15)
    near_1 = [(features.double() / size).float() for features in (bank, queries)]
    expected = evaluate_knn(near_1[0], labels, near_1[1], query_labels, protocol, probes=probes)
    assert 0.5 < expected.top1 < 1
    for features in ((bank, queries), (bank, near_1[1]), (near_1[0], queries)):
        assert evaluate_knn(features[0], labels, features[1], query_labels, protocol, probes=probes) == expected


@pytest.mark.parametrize("size", [1e-200, 1e-20, 1e20, 1e200])
def test_the_measure_of_collapse_at_any_size(size: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(40, 6).double()
    assert feature_std(size * features) == pytest.approx(feature_std(features), rel=1e-12)
