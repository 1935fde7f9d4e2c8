"""The small CIFAR-10 nets of sections 3.1 and 3.3, in the geometry of the authors' public configurations.

`cifar_conv`: three 5x5 convolutions, as in their `19pct` net. `cifar_local`: two 5x5 convolutions and two
locally connected 3x3 layers, as in `conv-local-13pct`, and with normalisation `conv-local-11pct` (cuda-convnet,
example-layers/). Shapes are for 24-pixel crops; pooled sizes are rounded up.
"""

import itertools
import math
from collections import OrderedDict
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.config import ModelConfig, Net, Pooling
from repro.model.alexnet import activation, after_convolution, dropout, pool, size
from repro.model.network import Network, output_shape

Stages = list[tuple[str, nn.Module]]


class LocallyConnected(nn.Module):
    """A convolution with its own filters at each place, section 3.3's "locally connected" layers; stride 1."""

    def __init__(self, maps_in: int, maps: int, kernel: int, padding: int, side: int) -> None:
        """Takes square inputs of `side` pixels. Weights are (places, maps, kernel * kernel * maps_in)."""
        super().__init__()
        self.kernel, self.padding, self.side = kernel, padding, side + 2 * padding - kernel + 1
        self.weight = nn.Parameter(torch.empty(self.side**2, maps, kernel**2 * maps_in))
        self.bias = nn.Parameter(torch.empty(self.side**2, maps))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, maps, H', W')."""
        pixels = F.pad(x, (self.padding,) * 4).permute(2, 3, 0, 1)
        offsets = itertools.product(range(self.kernel), repeat=2)
        shifted = [pixels[top : top + self.side, left : left + self.side] for top, left in offsets]
        patches = torch.cat(shifted, dim=3).flatten(0, 1)  # (places, N, kernel * kernel * C)
        out = torch.baddbmm(self.bias[:, None], patches, self.weight.transpose(1, 2))
        return out.unflatten(0, (self.side, self.side)).permute(2, 3, 0, 1)


def build_cifar(config: ModelConfig, classes: int, crop: int) -> Network:
    """The net for (N, 3, crop, crop) images. Raises UserError where its sizes do not fit."""
    stages = _first_two(config)
    if config.net is Net.cifar_conv:
        stages += _conv3(config)
    else:
        stages += _local(config, side=output_shape(nn.Sequential(OrderedDict(stages)), crop)[-1])
    features = nn.Sequential(OrderedDict(stages))
    inputs = math.prod(output_shape(features, crop))
    classifier: Stages = [("fc10", nn.Linear(inputs, classes))]
    if config.dropout.rate:
        classifier.insert(0, ("dropout10", dropout(config.dropout, inputs)))
    return Network(features, nn.Sequential(OrderedDict(classifier)))


def _later_pools(config: ModelConfig) -> ModelConfig:
    """`19pct` takes averages after conv2 and conv3."""
    if config.net is Net.cifar_conv:
        return replace(config, pool=replace(config.pool, kind=Pooling.average))
    return config


def _first_two(config: ModelConfig) -> Stages:
    """conv1 (N, 64, 24, 24) -> 12x12, conv2 (N, 64, 12, 12) -> 6x6."""
    maps1, maps2 = size(config, "conv1"), size(config, "conv2")
    return [
        ("conv1", nn.Conv2d(3, maps1, 5, padding=2)),
        *after_convolution(config, config.order1, 1, maps1),
        ("conv2", nn.Conv2d(maps1, maps2, 5, padding=2)),
        *after_convolution(_later_pools(config), config.order2, 2, maps2),
    ]


def _conv3(config: ModelConfig) -> Stages:
    """The third convolution of `19pct`: (N, 64, 3, 3) after pooling, (N, 64, 4, 4) for whole 32-pixel images."""
    return [
        ("conv3", nn.Conv2d(size(config, "conv2"), size(config, "conv3"), 5, padding=2)),
        (f"{config.activation.value}3", activation(config)),
        ("pool3", pool(_later_pools(config).pool)),
    ]


def _local(config: ModelConfig, side: int) -> Stages:
    """The two locally connected layers: (N, 64, 6, 6), (N, 32, 6, 6)."""
    stages: Stages = []
    maps = size(config, "conv2")
    for number in (3, 4):
        maps_in, maps = maps, size(config, f"local{number}")
        stages.append((f"local{number}", LocallyConnected(maps_in, maps, kernel=3, padding=1, side=side)))
        stages.append((f"{config.activation.value}{number}", activation(config)))
    return stages
