"""Initial weights and biases, section 5, and how scaled nets keep the gain of the full one."""

import math

import pytest
import torch
from torch import Tensor, nn

from repro.config import Config, InitKind, LayerNumbers
from repro.model import Network, build
from repro.model.initialization import FULL_FAN_IN, standard_deviation
from repro.model.network import fan_in

ONES = {"conv2", "conv4", "conv5", "fc6", "fc7"}  # section 5


@pytest.fixture(scope="module")
def quarter() -> Network:
    config = Config()
    config.model.scale, config.data.crop = 0.25, 96
    torch.manual_seed(0)
    return build(config, 10)


def test_weights_are_drawn_with_the_papers_deviation(quarter: Network) -> None:
    for layer in quarter.weight_layers().values():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        tolerance = 5 * 0.01 / math.sqrt(2 * weight.numel())  # five standard errors of a standard deviation
        assert weight.std().item() == pytest.approx(0.01, abs=tolerance)
        assert weight.mean().item() == pytest.approx(0, abs=5 * 0.01 / math.sqrt(weight.numel()))


def test_biases_are_one_where_the_paper_says(quarter: Network) -> None:
    for name, layer in quarter.weight_layers().items():
        bias = layer.bias
        assert isinstance(bias, Tensor)
        assert bias.unique().tolist() == [float(name in ONES)]


def test_fan_in_of_the_full_net_is_what_the_network_has() -> None:
    config = Config()
    config.model.layers.insert(5, "conv6")
    with torch.device("meta"):
        layers = build(config, 1000).weight_layers()
    assert {name: fan_in(layer) for name, layer in layers.items()} == FULL_FAN_IN


def test_keep_gain_changes_nothing_at_full_width_and_keeps_std_times_root_fan_in_elsewhere(quarter: Network) -> None:
    config = Config()
    config.model.init.keep_gain = True
    config.model.init.std = LayerNumbers(**dict.fromkeys(("conv3", "conv4", "conv5"), 0.03) | {"fc6": 0.01})
    for name, layer in quarter.weight_layers().items():
        gain = standard_deviation(name, layer, config.model.init) * math.sqrt(fan_in(layer))
        assert gain == pytest.approx(config.model.init.std.of(name) * math.sqrt(FULL_FAN_IN[name]))


@pytest.mark.parametrize(
    ("kind", "layer", "expected"),
    [
        (InitKind.he, nn.Conv2d(8, 16, 3, groups=2), math.sqrt(2 / 36)),
        (InitKind.he, nn.Linear(50, 20), math.sqrt(2 / 50)),
        (InitKind.xavier, nn.Conv2d(8, 16, 3), math.sqrt(2 / (72 + 144))),
        (InitKind.xavier, nn.Conv2d(8, 16, 3, groups=2), math.sqrt(2 / (36 + 72))),
        (InitKind.xavier, nn.Linear(50, 20), math.sqrt(2 / 70)),
    ],
)
def test_he_and_xavier(kind: InitKind, layer: nn.Module, expected: float) -> None:
    config = Config()
    config.model.init.kind = kind
    assert standard_deviation("conv2", layer, config.model.init) == pytest.approx(expected)


def test_the_seed_decides(quarter: Network) -> None:
    config = Config()
    config.model.scale, config.data.crop = 0.25, 96
    torch.manual_seed(0)
    same = build(config, 10)
    other = build(config, 10)
    assert all(map(torch.equal, quarter.parameters(), same.parameters()))
    assert not torch.equal(quarter.features.conv1.weight, other.features.conv1.weight)  # type: ignore[arg-type]
