"""The 2012 network, its relatives, and their parts; one configuration builds any of them."""

import itertools

from repro.config import Config, Net
from repro.model.alexnet import build_alexnet
from repro.model.cifar import build_cifar
from repro.model.fast.conv1 import Conv1
from repro.model.fast.pool import MaxPool
from repro.model.initialization import initialize
from repro.model.lrn import LocalResponseNorm
from repro.model.network import ColumnConv, Network, ReLU

__all__ = ["Network", "build"]


def build(config: Config, classes: int) -> Network:
    """The network of a configuration, with initial weights drawn from torch's global generator.

    Raises UserError where the sizes do not fit together.
    """
    builder = build_alexnet if config.model.net is Net.alexnet else build_cifar
    network = builder(config.model, classes, config.crop)
    network.checkpoint_activations = config.train.checkpoint_activations
    if config.train.compile:
        _take_fast_paths(network)
    initialize(network, config.model.init)
    return network


def _take_fast_paths(network: Network) -> None:
    for layer in network.features:
        if isinstance(layer, Conv1):
            layer.in_blocks = True
        elif isinstance(layer, ColumnConv):
            layer.one_by_one = True
        elif isinstance(layer, LocalResponseNorm | MaxPool):
            layer.compiled = True
    for layer, following in itertools.pairwise(network.features):
        if isinstance(layer, ReLU) and isinstance(following, LocalResponseNorm):
            layer.gradient_follows = following.after_relu = True
