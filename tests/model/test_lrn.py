"""LRN against a literal loop over the paper's formula, and against PyTorch's own where the conventions agree."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from repro.config import Neighbourhood, NormConfig
from repro.model import lrn
from repro.model.lrn import LocalResponseNorm


def literal_lrn(a: Tensor, n: int, alpha: float, beta: float, k: float, columns: int) -> Tensor:
    """Section 3.3 word by word: N is the number of maps of a column."""
    b = torch.empty_like(a)
    per_column = a.shape[1] // columns
    for i in range(a.shape[1]):
        first = i // per_column * per_column
        low, high = max(first, i - n // 2), min(first + per_column - 1, i + n // 2)
        total = sum(a[:, j] ** 2 for j in range(low, high + 1))
        b[:, i] = a[:, i] / (k + alpha * total) ** beta
    return b


def literal_lrn_of_pixels(a: Tensor, n: int, alpha: float, beta: float, k: float) -> Tensor:
    """The same with n x n pixels of one map as neighbours, clipped at the edges."""
    b = torch.empty_like(a)
    half, (height, width) = n // 2, a.shape[2:]
    for y, x in itertools.product(range(height), range(width)):
        window = a[:, :, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        b[:, :, y, x] = a[:, :, y, x] / (k + alpha * (window**2).sum((2, 3))) ** beta
    return b


def responses(*shape: int, scale: float = 50.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * scale


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(("n", "beta", "k"), [(5, 0.75, 2.0), (3, 0.75, 1.0), (9, 0.5, 1.0)])
def test_matches_the_papers_formula(columns: int, n: int, beta: float, k: float) -> None:
    a = responses(2, 12, 3, 4)
    layer = LocalResponseNorm(n, 1e-2, beta, k, columns)
    torch.testing.assert_close(layer(a), literal_lrn(a, n, 1e-2, beta, k, columns), rtol=1e-12, atol=1e-12)


def test_the_column_border_matters_only_for_the_four_maps_beside_it() -> None:
    a = responses(2, 96, 3, 3)
    across, within = (LocalResponseNorm(5, 1e-2, 0.75, 2.0, columns)(a) for columns in (1, 2))
    differs = (across - within).abs().amax((0, 2, 3)) > 0
    assert differs.nonzero().flatten().tolist() == [46, 47, 48, 49]


def test_pixels_of_one_map_match_a_literal_loop() -> None:
    a = responses(2, 3, 6, 5)
    layer = LocalResponseNorm(5, 1e-3, 0.75, 1.0, pixels=True)
    torch.testing.assert_close(layer(a), literal_lrn_of_pixels(a, 5, 1e-3, 0.75, 1.0), rtol=1e-12, atol=1e-12)


def test_pytorchs_layer_divides_alpha_by_n() -> None:
    a = responses(2, 12, 3, 3)
    plain = lrn.from_config(NormConfig(), columns=1)(a)
    divided = lrn.from_config(NormConfig(alpha_over_n=True), columns=1)(a)
    torch.testing.assert_close(plain, nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(a))
    torch.testing.assert_close(divided, nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)(a))
    assert not torch.allclose(plain, divided)


def test_the_sources_third_norm_is_an_average_over_25_pixels() -> None:
    a = responses(2, 4, 7, 7)
    mean_square = torch.nn.functional.avg_pool2d(a * a, 5, stride=1, padding=2, count_include_pad=True)
    torch.testing.assert_close(lrn.same_map_after_conv2()(a), a / (1 + 1e-3 * mean_square) ** 0.75)


def test_the_window_over_columns_follows_the_configuration() -> None:
    assert lrn.from_config(NormConfig(), columns=2).columns == 2
    assert lrn.from_config(NormConfig(within_column=False), columns=2).columns == 1
    assert lrn.from_config(NormConfig(neighbourhood=Neighbourhood.pixels), columns=2).pixels


@pytest.mark.parametrize("layer", [
    LocalResponseNorm(5, 0.1, 0.75, 2.0, 2),
    LocalResponseNorm(3, 0.1, 0.6, 1.0, 1),
    LocalResponseNorm(3, 0.1, 0.75, 1.0, pixels=True),
], ids=["columns", "other power", "pixels"])  # fmt: skip
def test_gradient(layer: LocalResponseNorm) -> None:
    a = responses(2, 8, 3, 3, scale=2.0).requires_grad_()
    assert torch.autograd.gradcheck(layer, (a,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_inputs_do_not_overflow(dtype: torch.dtype) -> None:
    a = responses(1, 8, 2, 2, scale=1000.0).to(dtype).requires_grad_()
    out = LocalResponseNorm(5, 1e-4, 0.75, 2.0)(a)
    out.backward(torch.ones_like(out))
    exact = literal_lrn(a.detach().double(), 5, 1e-4, 0.75, 2.0, 1)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-3)
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_autocast_leaves_the_sums_in_fp32() -> None:
    a = responses(2, 12, 3, 3).float()
    layer = LocalResponseNorm(5, 1e-2, 0.75, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(a)
    torch.testing.assert_close(inside, layer(a), rtol=0, atol=0)


def test_channels_last_stays_channels_last() -> None:
    a = responses(2, 8, 5, 5).float().contiguous(memory_format=torch.channels_last).requires_grad_()
    out = LocalResponseNorm(5, 1e-4, 0.75, 2.0, 2)(a)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_second_derivative_is_refused_not_wrong() -> None:
    a = responses(1, 4, 2, 2).requires_grad_()
    (first,) = torch.autograd.grad(LocalResponseNorm(3, 0.1, 0.75, 1.0)(a).square().sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
