"""The 2012 network, its relatives, and their parts; one configuration builds any of them."""

from repro.config import Config, Net
from repro.model import fast
from repro.model.alexnet import build_alexnet
from repro.model.cifar import build_cifar
from repro.model.initialization import initialize
from repro.model.network import Network

__all__ = ["Network", "build"]


def build(config: Config, classes: int) -> Network:
    """The network of a configuration, with initial weights drawn from torch's global generator.

    Raises UserError where the sizes do not fit together.
    """
    builder = build_alexnet if config.model.net is Net.alexnet else build_cifar
    network = builder(config.model, classes, config.crop)
    network.checkpoint_activations = config.train.checkpoint_activations
    if config.train.fast_kernels:
        fast.enable(network)
    initialize(network, config.model.init)
    return network
