"""The layers that PyTorch lacks."""

import pytest
import torch
from torch import nn

from repro.config import Config, Order
from repro.model import build
from repro.model.lrn import LocalResponseNorm
from repro.model.network import ColumnConv, ColumnLinear, Dropout, ReLU
from tests.tiny import tiny_config


def test_dropout_in_training_masks_without_rescaling() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 500) + 1
    out = Dropout(0.3, 500)(x)
    kept = out != 0
    assert torch.equal(out[kept], x[kept])
    assert abs(kept.float().mean().item() - 0.7) < 5 * (0.3 * 0.7 / x.numel()) ** 0.5


def test_dropout_at_test_multiplies_by_the_keep_rate() -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Dropout(0.3, 7).eval()(x), x * 0.7)


def test_inverted_dropout_rescales_in_training_and_not_at_test() -> None:
    x = torch.rand(50, 60) + 1
    layer = Dropout(0.25, 60, inverted=True)
    ratio = layer(x) / x
    assert ((ratio == 0) | (ratio - 4 / 3).abs().lt(1e-6)).all()
    assert abs(ratio.mean().item() - 1) < 5 * (0.25 / 0.75 / x.numel()) ** 0.5
    assert torch.equal(layer.eval()(x), x)


def test_a_given_mask_is_used() -> None:
    layer = Dropout(0.5, 3)
    layer.mask = torch.tensor([[True, False, True]])
    assert layer(torch.ones(1, 3)).tolist() == [[1.0, 0.0, 1.0]]


def test_column_linear_is_one_linear_layer_a_column() -> None:
    layer = ColumnLinear(inputs=6, units=8, columns=2).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    halves = [x[:, 3 * half : 3 * half + 3] @ layer.weight[half].T for half in (0, 1)]
    torch.testing.assert_close(layer(x), torch.cat(halves, 1) + layer.bias)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_column_linear_has_the_type_that_a_linear_layer_has_under_autocast(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    columns, plain = ColumnLinear(8, 6, columns=2), nn.Linear(8, 6)
    generator = torch.Generator().manual_seed(0)
    for parameter in columns.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(3, 8, generator=generator)
    exact = columns(x)
    with torch.autocast(device, dtype=torch.bfloat16):
        out, other = columns.to(device)(x.to(device)), plain.to(device)(x.to(device))
    assert out.dtype == other.dtype == torch.bfloat16
    assert (out.cpu() - exact).abs().max() < 2**-7 * exact.abs().max()
    out.float().sum().backward()
    assert {parameter.grad.dtype for parameter in columns.parameters() if parameter.grad is not None} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])  # the last has no kernels
@pytest.mark.parametrize("columns", [1, 2])
def test_the_norm_behind_a_relu_makes_the_gradient_of_both(dtype: torch.dtype, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = ((torch.randn(3, 12, 5, 7, generator=generator) * 50).to(dtype) for _ in range(2))
    relu, norm = ReLU(), LocalResponseNorm(5, 1e-3, 0.75, 2.0, columns)
    relu.gradient_follows = norm.after_relu = norm.compiled = True
    leaf = x.clone().requires_grad_()
    out = norm(relu(leaf * 1))
    exact_leaf = x.double().requires_grad_()
    exact = LocalResponseNorm(5, 1e-3, 0.75, 2.0, columns)(exact_leaf.relu())
    (found,), (expected,) = torch.autograd.grad(out, leaf, g), torch.autograd.grad(exact, exact_leaf, g.double())
    rounding = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(out.double(), exact, rtol=rounding, atol=1e-4)
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=1e-4)
    assert (found[x <= 0] == 0).all()


@pytest.mark.parametrize("fast", [True, False])
def test_a_relu_leaves_its_gradient_to_a_norm_right_behind_it(fast: bool) -> None:
    def left(config: Config) -> set[str]:
        stages = build(config, 4).features.named_children()
        return {name for name, layer in stages if getattr(layer, "gradient_follows", False)}

    config = tiny_config()
    config.train.compile = fast
    assert left(config) == ({"relu1", "relu2"} if fast else set())
    config.model.order1 = Order.lrn_relu_pool
    assert left(config) == ({"relu2"} if fast else set())


def test_a_relu_that_leaves_its_gradient_still_shows_what_it_does() -> None:
    relu, x = ReLU(), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    relu.gradient_follows = True
    leaf = x.clone().requires_grad_()
    out = relu(leaf * 1)
    assert out.equal(x.relu())
    assert torch.autograd.grad(out.sum(), leaf)[0].equal(torch.ones_like(x))
    assert isinstance(relu, nn.ReLU)


def grouped_and_by_columns(device: str, dtype: torch.dtype) -> list[tuple[torch.Tensor, ...]]:
    """Output and gradients of input, weights and biases, of one convolution in groups and of one a column."""
    torch.manual_seed(0)
    layer = ColumnConv(8, 12, kernel=3, padding=1, columns=2).to(device, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 5, 4, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    gradient, x = torch.randn(2, 12, 5, 4, device=device, dtype=dtype), x.requires_grad_()
    found = []
    for forward in (super(ColumnConv, layer).forward, layer._by_columns):
        out = forward(x)
        found.append((out, *torch.autograd.grad(out, (x, layer.weight, layer.bias), gradient)))
    return found


def test_a_convolution_a_column_is_that_of_groups() -> None:
    for groups, columns in zip(*grouped_and_by_columns("cpu", torch.float64), strict=True):
        torch.testing.assert_close(columns, groups, rtol=1e-12, atol=1e-12)
        assert columns.stride() == groups.stride()


@pytest.mark.cuda
def test_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for groups, columns in zip(*grouped_and_by_columns("cuda", torch.float32), strict=True):
        torch.testing.assert_close(columns, groups, rtol=1e-5, atol=1e-5)


def test_a_column_at_a_time_where_paths_are_fast() -> None:
    config = tiny_config()
    for fast in (False, True):
        config.train.compile = fast
        layers = [layer for layer in build(config, 4).features if isinstance(layer, ColumnConv)]
        assert [layer.one_by_one for layer in layers] == [fast] * 3
