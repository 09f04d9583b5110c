"""NT-Xent, in one block and in many, against closed forms, 60-digit arithmetic and two other libraries."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss as LightlyNTXent
from pytorch_metric_learning.losses import NTXentLoss as MetricLearningNTXent
from torch import Tensor

from ssl_adapt import nt_xent
from ssl_adapt.objectives.nt_xent import BLOCK_ROWS, nt_xent_by_blocks

pytestmark = pytest.mark.exactness

Loss = Callable[[Tensor, Tensor, float], Tensor]


def ours(proj_a: Tensor, proj_b: Tensor, temperature: float) -> Tensor:
    return nt_xent(proj_a, proj_b, temperature=temperature)


def ours_in_threes(proj_a: Tensor, proj_b: Tensor, temperature: float) -> Tensor:
    """Ours in blocks of 3 rows, as small batches come in one."""
    return nt_xent_by_blocks(proj_a, proj_b, temperature, 3)


def dense(proj_a: Tensor, proj_b: Tensor, temperature: float) -> Tensor:
    """The whole matrix at once, the negatives apart from the positive, all left to autograd."""
    rows = F.normalize(torch.cat([proj_a, proj_b]), dim=1)
    similarities = rows @ rows.T / temperature
    itself = torch.eye(len(rows), dtype=torch.bool)
    positive = itself.roll(len(proj_a), 0)
    negatives = similarities.masked_fill(itself | positive, -torch.inf).logsumexp(1)
    return F.softplus(negatives - similarities[positive], threshold=800).mean()


def lightly(proj_a: Tensor, proj_b: Tensor, temperature: float) -> Tensor:
    return LightlyNTXent(temperature=temperature)(proj_a, proj_b)


def metric_learning(proj_a: Tensor, proj_b: Tensor, temperature: float) -> Tensor:
    same_image = torch.arange(len(proj_a)).repeat(2)
    return MetricLearningNTXent(temperature=temperature)(torch.cat([proj_a, proj_b]), same_image)


def plain(proj_a: Tensor, proj_b: Tensor, temperature: float) -> Tensor:
    """The textbook form: cross-entropy over one row of similarities, its own column left out."""
    rows = F.normalize(torch.cat([proj_a, proj_b]), dim=1)
    logits = (rows @ rows.T / temperature).masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(rows)).roll(len(proj_a)))


def in_decimals(rows: list[list[Decimal]], temperature: Decimal) -> Decimal:
    """NT-Xent of 2B rows (first views, then second views), as the paper writes it."""
    unit = [[x / sum(y * y for y in row).sqrt() for x in row] for row in rows]
    pairs = len(rows) // 2
    total = Decimal(0)
    for i, row in enumerate(unit):
        exps = [(sum(x * y for x, y in zip(row, other, strict=True)) / temperature).exp() for other in unit]
        total -= (exps[(i + pairs) % len(rows)] / (sum(exps) - exps[i])).ln()
    return total / len(rows)


def value_and_gradient(loss: Loss, pair: tuple[Tensor, Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    leaves = [view.detach().clone().requires_grad_() for view in pair]
    value = loss(leaves[0], leaves[1], temperature)
    return value.detach(), torch.cat(torch.autograd.grad(value, leaves))


def random_pair(pairs: int, dim: int, *, noise: float | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Projections in float32; the second views are the first ones plus noise, or unrelated without noise."""
    generator = torch.Generator().manual_seed(seed)
    proj_a = torch.randn(pairs, dim, generator=generator)
    other = torch.randn(pairs, dim, generator=generator)
    return proj_a, other if noise is None else proj_a + noise * other


def relative_error(gradient: Tensor, exact: Tensor) -> float:
    """The worst row's, as rows of close pairs have gradients of very different sizes."""
    return ((gradient.double() - exact).norm(dim=1) / exact.norm(dim=1)).max().item()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("noise", [None, 0.3])
@pytest.mark.parametrize(("pairs", "dim", "block_rows"), [(2, 3, 3), (17, 8, 10), (17, 8, 512), (64, 32, 50)])
@pytest.mark.parametrize("other", [lightly, metric_learning])
def test_equals_other_libraries(
    other: Loss, pairs: int, dim: int, block_rows: int, noise: float | None, temperature: float
) -> None:
    proj_a, proj_b = (view.double() for view in random_pair(pairs, dim, noise=noise))
    form = partial(nt_xent_by_blocks, block_rows=block_rows)
    value, gradient = value_and_gradient(form, (3 * proj_a, proj_b), temperature)
    expected_value, expected_gradient = value_and_gradient(other, (3 * proj_a, proj_b), temperature)
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)
    assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("temperature", ["0.02", "0.07", "0.5"])
@pytest.mark.parametrize("noise", [1e-3, 1e-1])
@pytest.mark.parametrize("form", [ours, ours_in_threes])
def test_float64_equals_60_digits(form: Loss, noise: float, temperature: str) -> None:
    pairs, dim = 3, 4
    proj_a, proj_b = (view.double() for view in random_pair(pairs, dim, noise=noise, seed=1))
    value, gradient = value_and_gradient(form, (proj_a, proj_b), float(temperature))
    with localcontext(prec=60):
        rows = [[Decimal(x) for x in row] for row in torch.cat([proj_a, proj_b]).tolist()]
        exact_value = in_decimals(rows, Decimal(temperature))
        step, exact = Decimal("1e-20"), torch.zeros(2 * pairs, dim, dtype=torch.float64)
        for i in range(2 * pairs):
            for j in range(dim):
                middle, ends = rows[i][j], []
                for rows[i][j] in (middle + step, middle - step):
                    ends.append(in_decimals(rows, Decimal(temperature)))
                rows[i][j] = middle
                exact[i, j] = float((ends[0] - ends[1]) / (2 * step))
    assert value.item() == pytest.approx(float(exact_value), rel=1e-11, abs=0)
    assert relative_error(gradient, exact) < 1e-9


@pytest.mark.parametrize(
    ("temperature", "allowed", "plain_loses"), [(0.02, 3e-5, 1e-2), (0.07, 1e-5, 4e-5), (0.5, 1e-5, 0.0)]
)
@pytest.mark.parametrize("noise", [1e-1, 1e-2])
def test_float32_gradients_of_close_pairs(noise: float, temperature: float, allowed: float, plain_loses: float) -> None:
    pair = random_pair(128, 128, noise=noise)
    _, exact = value_and_gradient(dense, (pair[0].double(), pair[1].double()), temperature)
    for block_rows in (48, 256):
        form = partial(nt_xent_by_blocks, block_rows=block_rows)
        assert relative_error(value_and_gradient(form, pair, temperature)[1], exact) < allowed
    # The same measure on the textbook form shows that the case is a hard one.
    assert relative_error(value_and_gradient(plain, pair, temperature)[1], exact) > plain_loses
    assert relative_error(value_and_gradient(lightly, pair, temperature)[1], exact) > plain_loses


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("pairs", [2, 5])
def test_closed_forms(pairs: int, temperature: float) -> None:
    same = torch.ones(pairs, 7, dtype=torch.float64)
    assert ours(same, same, temperature).item() == pytest.approx(math.log(2 * pairs - 1), rel=1e-12)
    axes = torch.eye(pairs, 7, dtype=torch.float64)
    apart = math.log1p((2 * pairs - 2) * math.exp(-1 / temperature))
    assert ours(axes, axes, temperature).item() == pytest.approx(apart, rel=1e-12)


@pytest.mark.parametrize("form", [ours, ours_in_threes])
@pytest.mark.parametrize("logit", [10.0, 19.0, 21.0, 25.0, 60.0])
def test_positive_far_below_the_negatives(logit: float, form: Loss) -> None:
    # cosines: -1 to the positive, +1 and -1 to the negatives; log(1 + x) is not rounded to log(x) too early
    up = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    expected = logit + math.log1p(2 * math.exp(-logit))
    assert form(up, -up, 2 / logit).item() == pytest.approx(expected, rel=1e-14)


def test_gradcheck() -> None:
    proj_a, proj_b = (view.double().requires_grad_() for view in random_pair(4, 3))
    for form in (ours, ours_in_threes):
        assert torch.autograd.gradcheck(lambda a, b, form=form: 1.7 * form(a, b, 0.3), (proj_a, proj_b))
    assert torch.autograd.gradgradcheck(lambda a, b: ours(a, b, 0.3), (proj_a, proj_b))


def test_second_derivatives_of_blocks_are_refused() -> None:
    proj_a, proj_b = (view.requires_grad_() for view in random_pair(4, 3))
    with pytest.raises(ValueError, match="create_graph=True: NT-Xent has no second derivative"):
        torch.autograd.grad(ours_in_threes(proj_a, proj_b, 0.3), proj_a, create_graph=True)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    pairs=st.integers(2, 14),
    dim=st.integers(1, 6),
    block_rows=st.integers(1, 30),
    temperature=st.sampled_from([0.01, 0.02, 0.07, 0.5, 10.0]),
    noise=st.sampled_from([None, 0.0, 1e-2, 1.0]),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
    seed=st.integers(0, 2**31),
)
def test_any_block_gives_the_dense_form(
    pairs: int, dim: int, block_rows: int, temperature: float, noise: float | None, scale: float, seed: int
) -> None:
    proj_a, proj_b = (view.double() for view in random_pair(pairs, dim, noise=noise, seed=seed))
    form = partial(nt_xent_by_blocks, block_rows=block_rows)
    value, gradient = value_and_gradient(form, (scale * proj_a, proj_b), temperature)
    expected_value, expected_gradient = value_and_gradient(dense, (scale * proj_a, proj_b), temperature)
    torch.testing.assert_close(value, expected_value, rtol=1e-11, atol=1e-13)
    for found, expected, of_view in zip(gradient.split(pairs), expected_gradient.split(pairs), (scale, 1), strict=True):
        torch.testing.assert_close(of_view * found, of_view * expected, rtol=1e-8, atol=1e-11 / temperature)


@pytest.mark.parametrize("temperature", [0.02, 0.5])
@pytest.mark.parametrize("pairs", [BLOCK_ROWS // 2, BLOCK_ROWS // 2 + 1, BLOCK_ROWS + 7])
def test_at_the_real_block(pairs: int, temperature: float) -> None:
    proj_a, proj_b = (view.double() for view in random_pair(pairs, 8, noise=0.3))
    value, gradient = value_and_gradient(ours, (proj_a, proj_b), temperature)
    expected_value, expected_gradient = value_and_gradient(dense, (proj_a, proj_b), temperature)
    torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-16)


def test_no_matrix_of_similarities_is_made() -> None:
    """No operation of forward and backward of 1,200 rows allocates a tenth of what the matrix of them takes."""
    proj_a, proj_b = (view.requires_grad_() for view in random_pair(600, 4))
    largest = []
    for form in (partial(nt_xent_by_blocks, block_rows=150), dense):
        with torch.profiler.profile(profile_memory=True) as profile:
            form(proj_a, proj_b, 0.5).backward()
        largest.append(max(event.cpu_memory_usage for event in profile.events()))
    matrix = 1200 * 1200 * 4
    assert largest[1] >= matrix
    assert largest[0] < matrix / 10


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    pairs=st.integers(2, 12),
    dim=st.integers(1, 9),
    temperature=st.floats(0.05, 5),
    noise=st.sampled_from([None, 1e-2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_symmetries(pairs: int, dim: int, temperature: float, noise: float | None, seed: int) -> None:
    proj_a, proj_b = (view.double() for view in random_pair(pairs, dim, noise=noise, seed=seed))
    value, gradient = value_and_gradient(ours, (proj_a, proj_b), temperature)
    swapped_value, swapped_gradient = value_and_gradient(ours, (proj_b, proj_a), temperature)
    torch.testing.assert_close(swapped_value, value)
    torch.testing.assert_close(swapped_gradient.roll(pairs, 0), gradient)
    order = torch.randperm(pairs, generator=torch.Generator().manual_seed(seed))
    permuted_value, permuted_gradient = value_and_gradient(ours, (proj_a[order], proj_b[order]), temperature)
    torch.testing.assert_close(permuted_value, value)
    torch.testing.assert_close(permuted_gradient, gradient[torch.cat([order, order + pairs])])
    torch.testing.assert_close(ours(5 * proj_a, proj_b / 7, temperature), value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [None, 0.0, 1e-4])
@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e-2, 1e3, 1e6])
def test_extreme_temperatures_are_finite(temperature: float, noise: float | None, dtype: torch.dtype) -> None:
    proj_a, proj_b = (view.to(dtype) for view in random_pair(8, 4, noise=noise))
    for form in (ours, ours_in_threes):
        value, gradient = value_and_gradient(form, (proj_a, proj_b), temperature)
        assert value.isfinite()
        assert gradient.isfinite().all()
        if temperature >= 1e3:
            assert value.item() == pytest.approx(math.log(15), rel=1e-2)


@pytest.mark.parametrize("form", [ours, ours_in_threes])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, form: Loss) -> None:
    pair = random_pair(16, 8, noise=0.1)
    half = (pair[0].to(dtype), pair[1].to(dtype))
    value, gradient = value_and_gradient(form, half, 0.1)
    expected, expected_gradient = value_and_gradient(form, (half[0].float(), half[1].float()), 0.1)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert gradient.dtype == dtype
    assert torch.equal(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("form", [ours, ours_in_threes])
def test_autocast_changes_nothing(form: Loss) -> None:
    proj_a, proj_b = (view.requires_grad_() for view in random_pair(16, 8, noise=0.1))
    expected = form(proj_a, proj_b, 0.1)
    expected_gradients = torch.autograd.grad(expected, (proj_a, proj_b))
    with torch.autocast("cpu", torch.bfloat16):
        assert (proj_a @ proj_b.T).dtype == torch.bfloat16
        value = form(proj_a, proj_b, 0.1)
        inside = torch.autograd.grad(value, (proj_a, proj_b), retain_graph=True) if form is ours_in_threes else ()
    assert torch.equal(value, expected)
    gradients = torch.autograd.grad(value, (proj_a, proj_b))
    assert all(map(torch.equal, gradients, expected_gradients))
    assert all(map(torch.equal, inside, expected_gradients))  # autograd's own matmul would be in bfloat16 there


def test_errors_say_what_to_pass() -> None:
    views = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\); pass two of the same shape"):
        nt_xent(views, torch.randn(5, 3), temperature=0.5)
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(4, 2\)"):
        nt_xent(views, torch.randn(4, 2), temperature=0.5)
    with pytest.raises(ValueError, match=r"\(B, D\)"):
        nt_xent(views[0], views[0], temperature=0.5)
    with pytest.raises(ValueError, match="got 1 pair"):
        nt_xent(views[:1], views[:1], temperature=0.5)
    for temperature in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
            nt_xent(views, views, temperature=temperature)
