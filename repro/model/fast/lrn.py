"""Response normalisation by kernels that read and write each number once: `lrn_cpu.py` and `lrn_triton.py`."""

from types import ModuleType

import torch
from torch import Tensor, nn

from repro import triton_kernels
from repro.model.fast import lrn_cpu
from repro.model.lrn import LocalResponseNorm


class FusedLRN(LocalResponseNorm):
    """`LocalResponseNorm` by a kernel where there is one for the input, else by PyTorch's operations."""

    after_relu = False
    """Tells whether the gradient is that of a ReLU in front too, which then keeps none of its own."""

    def normalised(self, x: Tensor) -> Tensor:
        """Computes the formula by a kernel where there is one."""
        kernels = self.kernels(x)
        if kernels is None:
            return super().normalised(x)
        out: Tensor = kernels.forward(self, x)
        return out

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """Computes the gradient by a kernel where there is one, and that of a ReLU in front with it."""
        kernels, layout = self.kernels(x), _layout(x)
        if kernels is None or layout is None:
            gradient = super().gradient(x, g)
            return gradient.masked_fill_(x <= 0, 0) if self.after_relu else gradient
        of_input: Tensor = kernels.backward(self, x, g.contiguous(memory_format=layout))
        return of_input

    def kernels(self, x: Tensor) -> ModuleType | None:
        """The module with kernels for this input; None where PyTorch's operations do it."""
        if _layout(x) is None or torch.compiler.is_compiling():
            return None
        module = triton_kernels.load("repro.model.fast.lrn_triton") if x.is_cuda else lrn_cpu
        return module if module is not None and module.serves(self, x) else None


class ReLUBeforeLRN(nn.ReLU):
    """max(x, 0) in place, whose gradient the normalisation behind it makes: one pass over memory less."""

    def forward(self, x: Tensor) -> Tensor:
        """Same tensor out."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        with torch.no_grad():
            return super().forward(x)


def _layout(x: Tensor) -> torch.memory_format | None:
    """Tells how (N, C, H, W) lies in memory; None where there are gaps."""
    layouts = (torch.channels_last, torch.contiguous_format)
    return next((layout for layout in layouts if x.is_contiguous(memory_format=layout)), None)
