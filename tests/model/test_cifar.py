"""The geometry of the authors' CIFAR-10 nets (original configurations of cuda-convnet)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from repro.experiments.compose import compose
from repro.model import build
from repro.model.cifar import LocallyConnected
from repro.model.summary import layer_table


def shapes(setup: str) -> dict[str, list[int]]:
    return {row.name: row.output_shape for row in layer_table(compose([f"setup={setup}"]), 10)}


def test_geometry_of_conv_local_11pct() -> None:
    found = shapes("cifar10")
    expected = {
        "conv1": [64, 24, 24],
        "pool1": [64, 12, 12],
        "conv2": [64, 12, 12],
        "pool2": [64, 6, 6],
        "local3": [64, 6, 6],
        "local4": [32, 6, 6],
        "fc10": [10],
    }
    assert {name: found[name] for name in expected} == expected
    names = list(found)
    assert names.index("pool1") < names.index("norm1"), "normalised after pool1"
    assert names.index("norm2") < names.index("pool2"), "normalised before pool2"


def test_geometry_of_conv_local_13pct() -> None:
    found = shapes("cifar10_13pct")
    assert found["local3"] == [32, 6, 6]
    assert not [name for name in found if "norm" in name]
    rows = layer_table(compose(["setup=cifar10_13pct"]), 10)
    assert rows[-1].parameters == (1152 + 1) * 10


def test_geometry_of_19pct() -> None:
    config = compose(["setup=cifar10_19pct"])
    found = shapes("cifar10_19pct")
    assert [found[f"pool{number}"] for number in (1, 2, 3)] == [[32, 16, 16], [32, 8, 8], [64, 4, 4]]
    assert layer_table(config, 10)[-1].parameters == (1024 + 1) * 10
    features = build(config, 10).features
    assert isinstance(features.pool1, nn.MaxPool2d)
    assert isinstance(features.pool2, nn.AvgPool2d)
    assert isinstance(features.pool3, nn.AvgPool2d)


def test_dropout_stands_before_the_classifier() -> None:
    config = compose(["setup=cifar10"])
    config.model.dropout.rate = 0.3
    assert [name for name, _ in build(config, 10).classifier.named_children()] == ["dropout10", "fc10"]


def test_a_locally_connected_layer_with_equal_filters_is_a_convolution() -> None:
    layer = LocallyConnected(maps_in=3, maps=4, kernel=3, padding=1, side=6).double()
    filters = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nn.init.zeros_(layer.bias)
    layer.weight.data.copy_(filters.permute(0, 2, 3, 1).flatten(1).expand_as(layer.weight))
    torch.testing.assert_close(layer(x), F.conv2d(x, filters, padding=1))


def test_a_locally_connected_layer_has_its_own_filters_at_each_place() -> None:
    layer = LocallyConnected(maps_in=2, maps=3, kernel=3, padding=1, side=4).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1))
    out = layer(x)
    for place in range(16):
        top, left = divmod(place, 4)
        patch = padded[:, :, top : top + 3, left : left + 3].permute(0, 2, 3, 1).flatten(1)
        expected = patch @ layer.weight[place].T + layer.bias[place]
        torch.testing.assert_close(out[:, :, top, left], expected)


@pytest.mark.parametrize("ablation", ["tanh", "no_lrn", "average_pool", "nonoverlapping_pool"])
def test_ablations_build(ablation: str) -> None:
    network = build(compose(["setup=cifar10", f"ablation={ablation}"]), 10)
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, 10)
