"""Layers of the 2012 network that PyTorch lacks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1(nn.Conv2d):
    """A convolution of (N, maps_in, H, W) with square kernels, which may have more zeros at right and bottom."""

    def __init__(
        self, maps_in: int, maps: int, kernel: int, stride: int, padding: int = 0, right_bottom: int = 0
    ) -> None:
        """`padding`: zeros on all four sides; `right_bottom`: those that come on top at right and bottom."""
        super().__init__(maps_in, maps, kernel, stride, padding)
        self.zeros, self.right_bottom = padding, right_bottom

    def forward(self, x: Tensor) -> Tensor:
        """(N, maps_in, H, W) to (N, maps, H', W')."""
        return super().forward(F.pad(x, (0, self.right_bottom, 0, self.right_bottom)) if self.right_bottom else x)

    def extra_repr(self) -> str:
        """Describes the layer for `print(network)`."""
        return super().extra_repr() + (f", {self.right_bottom} more at right and bottom" if self.right_bottom else "")


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
        """Draws which units of a batch are kept, (N, units) bool, from torch's global generator."""
        return torch.rand(count, self.units, device=device) >= self.rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, units), same shape out."""
        if not self.training:
            return x if self.inverted else x * (1 - self.rate)
        mask = self.draw(len(x), x.device) if self.mask is None else self.mask
        return x * mask / (1 - self.rate) if self.inverted else x * mask
