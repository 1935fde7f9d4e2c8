"""Initial weights and biases, section 5."""

import math

from torch import Tensor, nn

from repro.config import InitConfig, InitKind
from repro.model.network import Network, fan_in

# Inputs of one neuron in the paper's net, section 3.5: what `keep_gain` compares with.
FULL_FAN_IN = {
    "conv1": 11 * 11 * 3,
    "conv2": 5 * 5 * 48,
    "conv3": 3 * 3 * 256,
    "conv4": 3 * 3 * 192,
    "conv5": 3 * 3 * 192,
    "conv6": 3 * 3 * 256,
    "fc6": 6 * 6 * 256,
    "fc7": 4096,
    "fc8": 4096,
}


def initialize(network: Network, config: InitConfig) -> None:
    """Draws every weight from torch's global generator and sets every bias (with `torch` it draws them too)."""
    for name, layer in network.weight_layers().items():
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        if config.kind is InitKind.torch:  # what torch.nn.Linear.reset_parameters comes to
            bound = 1 / math.sqrt(fan_in(layer))
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        else:
            nn.init.normal_(weight, std=standard_deviation(name, layer, config))
            nn.init.constant_(bias, config.bias.of(name))


def standard_deviation(name: str, layer: nn.Module, config: InitConfig) -> float:
    """Standard deviation of a layer's initial weights, where these are normally distributed."""
    inputs = fan_in(layer)
    if config.kind is InitKind.he:  # He et al. 2015, equation 10
        return math.sqrt(2 / inputs)
    if config.kind is InitKind.xavier:  # Glorot and Bengio 2010, equation 12: 2 / (fan-in + fan-out)
        return math.sqrt(2 / (inputs + _fan_out(layer)))
    std = config.std.of(name)
    return std * math.sqrt(FULL_FAN_IN[name] / inputs) if config.keep_gain else std


def _fan_out(layer: nn.Module) -> int:
    """Neurons that one input feeds, at stride 1."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Conv2d):
        return weight.shape[0] // layer.groups * weight.shape[2] * weight.shape[3]
    return weight.shape[-2]
