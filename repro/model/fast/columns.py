"""The convolutions of columns that see only their own maps, section 3.2, on a GPU one after the other.

cuDNN's weight gradients of groups in bf16 took 5.0 of the 13.7 ms of a profiled step of the full net on an H200 (batch
128, torch 2.11; `repro.profile`, before this).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvByColumns(nn.Conv2d):
    """A grouped convolution, (N, C, H, W) to (N, maps, H', W'), which a GPU makes column by column."""

    def forward(self, x: Tensor) -> Tensor:
        """The columns' maps one after the other."""
        if x.is_cuda and not torch.compiler.is_compiling():
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
