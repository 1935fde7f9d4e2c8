"""The frame that every network here shares, and the few layers that PyTorch lacks."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repro.errors import UserError

WEIGHT_LAYERS = ("conv", "local", "fc")


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


class ColumnLinear(nn.Module):
    """A fully connected layer whose columns see only their own inputs: (N, inputs) -> (N, units)."""

    def __init__(self, inputs: int, units: int, columns: int) -> None:
        """`inputs` and `units` count all columns together."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(columns, units // columns, inputs // columns))
        self.bias = nn.Parameter(torch.empty(units))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, units), the columns' units one after the other."""
        columns = self.weight.shape[0]
        parts = x.unflatten(1, (columns, -1)).transpose(0, 1)
        bias = self.bias.unflatten(
            0, (columns, 1, -1)
        )  # added within, so that autocast's type comes out, as of nn.Linear
        return torch.baddbmm(bias, parts, self.weight.transpose(1, 2)).transpose(0, 1).flatten(1)


class ColumnConv(nn.Conv2d):
    """A convolution whose columns see only their own maps: (N, C, H, W) to (N, maps, H', W')."""

    def __init__(self, maps_in: int, maps: int, kernel: int, padding: int, columns: int) -> None:
        """`maps_in` and `maps` count all columns together; zeros on all four sides."""
        super().__init__(maps_in, maps, kernel, padding=padding, groups=columns)
        self.one_by_one = False
        """Whether a GPU makes one convolution a column. cuDNN's weight gradients of groups in bf16 took 5.0 of the 13.7
        ms of a profiled step of the full net on an H200 (batch 128, torch 2.11; repro.profile, before this)."""

    def forward(self, x: Tensor) -> Tensor:
        """The columns' maps one after the other."""
        if self.one_by_one and x.is_cuda and not torch.compiler.is_compiling():
            return self._by_columns(x)
        return super().forward(x)

    def _by_columns(self, x: Tensor) -> Tensor:
        """The same, of images that lie channels last in memory, as do those of each column."""
        assert self.bias is not None
        own = zip(x.chunk(self.groups, 1), self.weight.chunk(self.groups), self.bias.chunk(self.groups), strict=True)
        maps = [
            F.conv2d(one.contiguous(memory_format=torch.channels_last), weight, bias, padding=self.padding)
            for one, weight, bias in own
        ]
        return torch.cat(maps, 1)


class LocallyConnected(nn.Module):
    """A convolution with its own filters at each place, section 3.3's "locally connected" layers; stride 1."""

    def __init__(self, maps_in: int, maps: int, kernel: int, padding: int, side: int) -> None:
        """For square inputs of `side` pixels. Weights are (places, maps, kernel * kernel * maps_in)."""
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


class ReLU(nn.ReLU):
    """max(x, 0) in place, for no layer needs what it was given: one pass over memory less."""

    def __init__(self) -> None:
        """Any shape."""
        super().__init__(inplace=True)
        self.gradient_follows = False
        """Whether the layer behind sets the gradient to zero where this one would: another pass less."""

    def forward(self, x: Tensor) -> Tensor:
        """Same tensor out."""
        if self.gradient_follows and not torch.compiler.is_compiling():
            with torch.no_grad():
                return super().forward(x)
        return super().forward(x)


class Dropout(nn.Module):
    """Dropout as in section 4.2: a mask in training, outputs times the keep rate at test; nothing is rescaled.

    `inverted`: outputs divided by the keep rate in training, and left alone at test.
    """

    def __init__(self, rate: float, units: int, inverted: bool = False) -> None:
        """`rate`: probability that one of the (N, units) is set to zero."""
        super().__init__()
        self.rate, self.units, self.inverted = rate, units, inverted
        self.mask: Tensor | None = None
        """The next mask (N, units), where a batch comes in parts that share one drawn for the whole."""

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Which units of a batch are kept, (N, units) bool, from torch's global generator."""
        return torch.rand(count, self.units, device=device) >= self.rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, units), same shape out."""
        if not self.training:
            return x if self.inverted else x * (1 - self.rate)
        mask = self.draw(len(x), x.device) if self.mask is None else self.mask
        return x * mask / (1 - self.rate) if self.inverted else x * mask


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
