"""The layers that PyTorch lacks."""

import torch
from torch import nn

from repro.model.network import ColumnLinear, Dropout


def test_dropout_in_training_masks_without_rescaling() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 500) + 1
    out = Dropout(0.3)(x)
    kept = out != 0
    assert torch.equal(out[kept], x[kept])
    assert abs(kept.float().mean().item() - 0.7) < 5 * (0.3 * 0.7 / x.numel()) ** 0.5


def test_dropout_at_test_multiplies_by_the_keep_rate() -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Dropout(0.3).eval()(x), x * 0.7)


def test_paper_and_inverted_dropout_differ_by_the_keep_rate() -> None:
    x = torch.rand(50, 60) + 1
    torch.manual_seed(3)
    ours = Dropout(0.5)(x)
    assert set((nn.Dropout(0.5)(x) / x).unique().round().tolist()) == {0.0, 2.0}
    assert set((ours / x).unique().tolist()) == {0.0, 1.0}


def test_column_linear_is_one_linear_layer_a_column() -> None:
    layer = ColumnLinear(inputs=6, units=8, columns=2).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    halves = [x[:, 3 * half : 3 * half + 3] @ layer.weight[half].T for half in (0, 1)]
    torch.testing.assert_close(layer(x), torch.cat(halves, 1) + layer.bias)
