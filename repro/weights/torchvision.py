"""Names of the layers in the state dict of `torchvision.models.alexnet`, which `recipe=torchvision` rebuilds.

Its pixels are divided by their standard deviation: `data.unit_variance`, with the mean of each channel.
"""

import io

import torch
from torch import Tensor

from repro.errors import UserError
from repro.model import Network

LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
"""torchvision's name -> ours."""


def to_bytes(network: Network) -> bytes:
    """A file for `torchvision.models.alexnet`. UserError where the network has other layers."""
    file = io.BytesIO()
    torch.save(to_torchvision(network), file)
    return file.getvalue()


def to_torchvision(network: Network) -> dict[str, Tensor]:
    """The state dict for `torchvision.models.alexnet`. UserError where the network has other layers."""
    theirs = {ours: name for name, ours in LAYERS.items()}
    layers = network.weight_layers()
    if layers.keys() != theirs.keys() or len(network.state_dict()) != 2 * len(layers):
        raise UserError(f"torchvision's alexnet has {', '.join(theirs)}; this network has {', '.join(layers)}")
    return {
        f"{theirs[layer]}.{kind}": tensor.cpu().contiguous()
        for layer, module in layers.items()
        for kind, tensor in module.state_dict().items()
    }
