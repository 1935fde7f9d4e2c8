"""Faster layers against the plain ones, and which of them a network has."""

import copy

import pytest
import torch
from torch import nn

from repro.config import Config, Order
from repro.model import build, fast
from repro.model.fast.columns import ConvByColumns
from repro.model.fast.lrn import FusedLRN, ReLUBeforeLRN
from repro.model.lrn import LocalResponseNorm
from tests.tiny import tiny_config


def test_faster_layers_keep_names_and_weights() -> None:
    config = tiny_config()
    plain = build(config, 4)
    other = copy.deepcopy(plain)
    fast.enable(other)
    assert {type(layer).__name__ for layer in other.features} >= {"SpaceToDepthConv1", "FusedLRN", "MaxPool"}
    for (name, ours), (theirs_name, theirs) in zip(other.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == theirs_name
        assert torch.equal(ours, theirs)
    x = torch.randn(2, 3, config.crop, config.crop, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])  # the last has no kernels
@pytest.mark.parametrize("columns", [1, 2])
def test_the_norm_behind_a_relu_makes_the_gradient_of_both(dtype: torch.dtype, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = ((torch.randn(3, 12, 5, 7, generator=generator) * 50).to(dtype) for _ in range(2))
    relu, norm = ReLUBeforeLRN(inplace=True), FusedLRN(5, 1e-3, 0.75, 2.0, columns)
    norm.after_relu = True
    leaf = x.clone().requires_grad_()
    out = norm(relu(leaf * 1))
    exact_leaf = x.double().requires_grad_()
    exact = LocalResponseNorm(5, 1e-3, 0.75, 2.0, columns)(exact_leaf.relu())
    (found,), (expected,) = torch.autograd.grad(out, leaf, g), torch.autograd.grad(exact, exact_leaf, g.double())
    rounding = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(out.double(), exact, rtol=rounding, atol=1e-4)
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=1e-4)
    assert (found[x <= 0] == 0).all()


@pytest.mark.parametrize("faster", [True, False])
def test_a_relu_leaves_its_gradient_to_a_norm_right_behind_it(faster: bool) -> None:
    def left(config: Config) -> set[str]:
        stages = build(config, 4).features.named_children()
        return {name for name, layer in stages if isinstance(layer, ReLUBeforeLRN)}

    config = tiny_config()
    config.train.fast_kernels = faster
    assert left(config) == ({"relu1", "relu2"} if faster else set())
    config.model.order1 = Order.lrn_relu_pool
    assert left(config) == ({"relu2"} if faster else set())


def test_a_relu_that_leaves_its_gradient_still_shows_what_it_does() -> None:
    relu, x = ReLUBeforeLRN(inplace=True), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    leaf = x.clone().requires_grad_()
    out = relu(leaf * 1)
    assert out.equal(x.relu())
    assert torch.autograd.grad(out.sum(), leaf)[0].equal(torch.ones_like(x))


def grouped_and_by_columns(device: str, dtype: torch.dtype) -> list[tuple[torch.Tensor, ...]]:
    """Output and gradients of input, weights and biases, of one convolution in groups and of one a column."""
    torch.manual_seed(0)
    layer = ConvByColumns(8, 12, 3, padding=1, groups=2).to(device, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 5, 4, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    gradient, x = torch.randn(2, 12, 5, 4, device=device, dtype=dtype), x.requires_grad_()
    found = []
    for forward in (super(ConvByColumns, layer).forward, layer._by_columns):
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
    for faster in (False, True):
        config.train.fast_kernels = faster
        layers = [layer for layer in build(config, 4).features if isinstance(layer, nn.Conv2d) and layer.groups > 1]
        assert [isinstance(layer, ConvByColumns) for layer in layers] == [faster] * 3
