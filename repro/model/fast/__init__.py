"""Faster ways to compute what the layers of the network compute: kernels, and other orders of the same sums."""

import itertools

from torch import nn

from repro.model.fast.columns import ConvByColumns
from repro.model.fast.conv1 import SpaceToDepthConv1
from repro.model.fast.lrn import FusedLRN, ReLUBeforeLRN
from repro.model.fast.pool import MaxPool
from repro.model.layers import Conv1
from repro.model.lrn import LocalResponseNorm
from repro.model.network import Network

__all__ = ["enable"]

_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    Conv1: SpaceToDepthConv1,
    LocalResponseNorm: FusedLRN,
    nn.MaxPool2d: MaxPool,
}


def enable(network: Network) -> None:
    """Gives each layer that has one its faster class. A layer keeps its place, its name and its weights."""
    layers = list(network.features)
    for layer in layers:
        if type(layer) is nn.Conv2d and layer.groups > 1:
            layer.__class__ = ConvByColumns
        else:
            layer.__class__ = _FASTER.get(type(layer), type(layer))
    for layer, following in itertools.pairwise(layers):
        if type(layer) is nn.ReLU and isinstance(following, FusedLRN):
            layer.__class__ = ReLUBeforeLRN
            following.after_relu = True
