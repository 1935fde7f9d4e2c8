"""The frame that every network here shares."""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repro.errors import UserError

WEIGHT_LAYERS = ("conv", "local", "fc")
"""How the names of layers with weights begin."""


class Network(nn.Module):
    """Feature layers (N, 3, H, W) -> (N, C, h, w), then classifier layers (N, C h w) -> (N, classes).

    Layers with weights bear the paper's names: conv1 to conv5, fc6 to fc8.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        """Takes the two parts; the builders make them."""
        super().__init__()
        self.features, self.classifier = features, classifier
        self.checkpoint_activations = False

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W), pixels 0-255 less the mean, to logits (N, classes)."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            x = checkpoint(self.features, x, use_reentrant=False)
        else:
            x = self.features(x)
        return self.classifier(x.flatten(1))

    def weight_layers(self) -> dict[str, nn.Module]:
        """Layers with weights by name, in order."""
        stages = [*self.features.named_children(), *self.classifier.named_children()]
        return {name: layer for name, layer in stages if name.startswith(WEIGHT_LAYERS)}


def fan_in(layer: nn.Module) -> int:
    """Inputs of one neuron of a layer with weights."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Conv2d):
        return math.prod(weight.shape[1:])
    return weight.shape[-1]


def output_shape(features: nn.Sequential, crop: int) -> tuple[int, ...]:
    """Shape (C, h, w) that the feature layers make of a (3, crop, crop) image. UserError where it is too small."""
    try:
        with torch.no_grad():
            return tuple(features.eval()(torch.zeros(1, 3, crop, crop)).shape[1:])
    except RuntimeError as error:
        if "size" not in str(error):
            raise
        raise UserError(f"data.crop={crop}: the network's layers do not fit an input of {crop} pixels") from error
    finally:
        features.train()
