"""Shapes, parameters and multiply-adds by plain arithmetic: every recipe's net, and the CIFAR nets."""

import math

import pytest

from repro.config import Config, Conv1Input
from repro.experiments import folder
from repro.experiments.compose import compose
from repro.model.summary import layer_table, total

CLASSES = 1000
ZEROS = {Conv1Input.real_pixels: 0, Conv1Input.zero_all_sides: 2, Conv1Input.one_zero_all_sides: 1}
KNOWN_PARAMETERS = dict.fromkeys(("paper", "source", "caffe", "caffenet"), 60_965_224) | {"torchvision": 61_100_840}
Row = tuple[list[int], int, int]  # output shape, parameters, multiply-adds


def floored(side: int, kernel: int, stride: int, padding: int = 0) -> int:
    """Places of a kernel along a side; what is left over is left out."""
    return (side + 2 * padding - kernel) // stride + 1


def ceiled(side: int, kernel: int, stride: int, padding: int = 0) -> int:
    """The authors' rule: what is left over has a place too (layer.py:1004; 1164 for pooling)."""
    return 1 + math.ceil((2 * padding + side - kernel) / stride)


class Net:
    """The table of a net, row by row; `maps` and `side` are those of the last output."""

    def __init__(self, side: int) -> None:
        self.maps, self.side = 3, side
        self.rows: dict[str, Row] = {}

    def conv(self, name: str, maps: int, kernel: int, side: int, groups: int = 1, filter_sets: int = 1) -> None:
        """A convolution with `side` places a side; locally connected, it has a set of filters for each place."""
        inputs = kernel * kernel * self.maps // groups
        self.rows[name] = [maps, side, side], filter_sets * maps * (inputs + 1), side * side * maps * inputs
        self.maps, self.side = maps, side

    def pool(self, name: str, side: int) -> None:
        self.rows[name] = [self.maps, side, side], 0, 0
        self.side = side

    def fc(self, name: str, units: int) -> None:
        inputs = self.maps * self.side * self.side
        self.rows[name] = [units], units * (inputs + 1), units * inputs
        self.maps, self.side = units, 1


def alexnet(config: Config) -> Net:
    """Section 3.5 with a recipe's sizes, columns, padding of conv1 and rounding."""
    model, sizes = config.model, config.model.sizes
    pooled = ceiled if model.pool.round_up else floored
    net = Net(227 if model.conv1_input is Conv1Input.real_pixels else config.data.crop)
    zeros = ZEROS.get(model.conv1_input)
    conv1_side = ceiled(net.side, 11, 4) if zeros is None else floored(net.side, 11, 4, zeros)
    net.conv("conv1", sizes.conv1, 11, conv1_side)
    net.pool("pool1", pooled(net.side, 3, 2))
    net.conv("conv2", sizes.conv2, 5, floored(net.side, 5, 1, padding=2), groups=model.columns)
    net.pool("pool2", pooled(net.side, 3, 2))
    net.conv("conv3", sizes.conv3, 3, floored(net.side, 3, 1, padding=1))
    net.conv("conv4", sizes.conv4, 3, floored(net.side, 3, 1, padding=1), groups=model.columns)
    net.conv("conv5", sizes.conv5, 3, floored(net.side, 3, 1, padding=1), groups=model.columns)
    net.pool("pool5", pooled(net.side, 3, 2))
    for name, units in (("fc6", sizes.fc6), ("fc7", sizes.fc7), ("fc8", CLASSES)):
        net.fc(name, units)
    return net


def cifar_net(setup: str) -> Net:
    """The authors' 19pct, conv-local-13pct and conv-local-11pct (cuda-convnet, example-layers/)."""
    local3 = {"cifar10": 64, "cifar10_13pct": 32}.get(setup)
    side, maps = (32, 32) if local3 is None else (24, 64)
    net = Net(side)
    for number in (1, 2):
        net.conv(f"conv{number}", maps, 5, floored(net.side, 5, 1, padding=2))
        net.pool(f"pool{number}", ceiled(net.side, 3, 2))
    if local3 is None:
        net.conv("conv3", 64, 5, floored(net.side, 5, 1, padding=2))
        net.pool("pool3", ceiled(net.side, 3, 2))
    else:
        for name, maps in (("local3", local3), ("local4", 32)):
            places = floored(net.side, 3, 1, padding=1)
            net.conv(name, maps, 3, places, filter_sets=places * places)
    net.fc("fc10", 10)
    return net


def assert_described(net: Net, config: Config, classes: int) -> None:
    table = layer_table(config, classes)
    rows = {row.name: (row.output_shape, row.parameters, row.macs) for row in table}
    kinds = ("conv", "local", "pool", "fc")
    assert {name: row for name, row in rows.items() if name.startswith(kinds)} == net.rows
    assert total(table) == {
        "parameters": sum(parameters for _, parameters, _ in net.rows.values()),
        "macs": sum(macs for _, _, macs in net.rows.values()),
        "neurons": sum(math.prod(shape) for shape, parameters, _ in net.rows.values() if parameters),
    }


@pytest.mark.parametrize("recipe", folder.choices("recipe"))
def test_a_recipes_net(recipe: str) -> None:
    config = compose([f"recipe={recipe}", "setup=ilsvrc2012"])
    net = alexnet(config)
    assert_described(net, config, CLASSES)
    if recipe in KNOWN_PARAMETERS:
        assert sum(parameters for _, parameters, _ in net.rows.values()) == KNOWN_PARAMETERS[recipe]


@pytest.mark.parametrize("recipe", ["paper", "source"])
@pytest.mark.parametrize("setup", ["cifar10", "cifar10_13pct", "cifar10_19pct"])
def test_a_cifar_net(recipe: str, setup: str) -> None:
    assert_described(cifar_net(setup), compose([f"recipe={recipe}", f"setup={setup}"]), 10)
