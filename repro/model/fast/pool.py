"""Max-pooling, section 3.4, with a backward pass that needs only where each maximum stood.

PyTorch keeps for each window an index of eight bytes, four times what the number itself takes in bf16. Within its own
window one byte tells the place, and with it alone `pool_triton.py` writes each number of the gradient once.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from repro import triton_kernels


class _MaxPool(torch.autograd.Function):
    """Keeps the winners' places alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "MaxPool", kernels: ModuleType) -> Tensor:
        """The maxima of `MaxPool`."""
        out, winners = kernels.forward(layer, x)
        ctx.save_for_backward(winners)
        ctx.layer, ctx.kernels, ctx.shape = layer, kernels, x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """A window's gradient goes to its winner."""
        (winners,) = ctx.saved_tensors
        g = gradients[0].contiguous(memory_format=torch.channels_last)
        return ctx.kernels.backward(ctx.layer, winners, g, ctx.shape), None, None


class MaxPool(nn.MaxPool2d):
    """The maximum of each window: (N, C, H, W) to (N, C, `places(H)`, `places(W)`)."""

    kernel_size: int
    stride: int

    def places(self, length: int) -> int:
        """Windows along a side of that many pixels; each begins within it."""
        beyond_first = length - self.kernel_size
        if not self.ceil_mode:
            return beyond_first // self.stride + 1
        return min(-(-beyond_first // self.stride), (length - 1) // self.stride) + 1

    def kernels(self, x: Tensor) -> ModuleType | None:
        """The module with kernels for this input; None where PyTorch's operation does it."""
        if not x.is_cuda or torch.compiler.is_compiling():
            return None
        module = triton_kernels.load("repro.model.fast.pool_triton")
        return module if module is not None and module.serves(self, x) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same type; of equal numbers the first wins, and NaN before all."""
        kernels = self.kernels(x)
        return super().forward(x) if kernels is None else _MaxPool.apply(x, self, kernels)
