"""The layers that PyTorch lacks."""

import pytest
import torch
from torch import nn

from repro.model.layers import ColumnLinear, Dropout


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
