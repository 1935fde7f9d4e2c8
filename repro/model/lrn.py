"""Local response normalisation, section 3.3: b = a / (k + alpha * sum over n neighbours of a^2)^beta.

One operation serves every convention. The neighbours are n adjacent maps, within a column or across the
border between columns, or n x n pixels of the same map. `alpha` always multiplies the plain sum; who wants
the convention of Caffe, PyTorch or the authors' own code (`layer.py:1182-1186`) divides it by n first.

The window is symmetric, so the sum S is its own transpose and the gradient needs S once more:
    da = g d^-beta - 2 alpha beta a S(g a d^-(beta + 1)),    d = k + alpha S(a^2).

The formulas stand below in PyTorch's operations, for every device, type and convention. `lrn_cpu.py` and
`lrn_triton.py` have kernels that read and write each number once; see `tests/benchmarks`.
"""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from repro import triton_kernels
from repro.config import Neighbourhood, NormConfig
from repro.model.fast import lrn_cpu
from repro.model.fast.lrn_window import BETA


def _sum_over_maps(x: Tensor, n: int, columns: int, scale: float) -> Tensor:
    """`scale` times the sum of (N, C, H, W) over n adjacent maps of a column: a product with a banded matrix."""
    maps = x.shape[1]
    index = torch.arange(maps, device=x.device)
    column = index // (maps // columns)
    near = (index[:, None] - index[None, :]).abs() <= n // 2
    band = (near & (column[:, None] == column[None, :])).to(x.dtype) * scale
    return F.conv2d(x, band[:, :, None, None])


def _sum_over_pixels(x: Tensor, n: int, scale: float) -> Tensor:
    """`scale` times the sum of (N, C, H, W) over n x n pixels of the same map; pixels outside count as zero."""
    return F.avg_pool2d(x, n, stride=1, padding=n // 2).mul_(n**2 * scale)  # ONNX export ignores divisor_override


def _wide(x: Tensor) -> Tensor:
    """At least fp32: squares of raw-pixel responses overflow fp16."""
    return x if x.dtype == torch.float64 else x.float()


def _power(d: Tensor, beta: float) -> Tensor:
    """d^-beta; for the paper's two square roots, several times faster than pow."""
    if beta == BETA:
        root = d.rsqrt()
        return root * root.sqrt()
    return d.pow(-beta)


def _full_precision(x: Tensor) -> torch.autocast:
    """Switches autocast off; shapes-only tensors on `meta` have none."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def _layout(x: Tensor) -> torch.memory_format | None:
    """How (N, C, H, W) lies in memory; None where there are gaps."""
    layouts = (torch.channels_last, torch.contiguous_format)
    return next((layout for layout in layouts if x.is_contiguous(memory_format=layout)), None)


class _LocalResponseNorm(torch.autograd.Function):
    """Keeps the input alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "LocalResponseNorm") -> Tensor:
        """The formula at the top of this file."""
        ctx.save_for_backward(x)
        ctx.layer, ctx.kernels = layer, layer.kernels(x)
        if ctx.kernels is not None:
            return ctx.kernels.forward(layer, x)
        with _full_precision(x):
            wide = _wide(x)
            return (wide * _power(layer.denominator(wide), layer.beta)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient at the top of this file."""
        (x,), layer = ctx.saved_tensors, ctx.layer
        if ctx.kernels is not None:
            layout = _layout(x)
            assert layout is not None
            g = gradients[0].contiguous(memory_format=layout)
            return ctx.kernels.backward(layer, x, g), None
        with _full_precision(x):
            wide = _wide(x)
            d = layer.denominator(wide)
            scaled = _wide(gradients[0]) * _power(d, layer.beta)
            neighbours = layer.sum(scaled * wide / d, 2 * layer.alpha * layer.beta)
            gradient = (scaled - wide * neighbours).to(x.dtype)
            return gradient.masked_fill_(x <= 0, 0) if layer.after_relu else gradient, None


class LocalResponseNorm(nn.Module):
    """LRN of (N, C, H, W), same shape out. `alpha` multiplies the plain sum; a window is clipped at the edges."""

    def __init__(self, n: int, alpha: float, beta: float, k: float, columns: int = 1, pixels: bool = False) -> None:
        """`pixels`: the neighbours are n x n pixels of the same map instead of n maps of the same column."""
        super().__init__()
        self.n, self.alpha, self.beta, self.k = n, alpha, beta, k
        self.columns, self.pixels = columns, pixels
        self.compiled = False
        """Whether kernels are used, where there are some for the input."""
        self.after_relu = False
        """Whether the gradient accounts for a ReLU in front too, see `network.ReLU`."""

    def sum(self, x: Tensor, scale: float) -> Tensor:
        """`scale` times the sum of (N, C, H, W) over each neighbourhood."""
        return _sum_over_pixels(x, self.n, scale) if self.pixels else _sum_over_maps(x, self.n, self.columns, scale)

    def denominator(self, x: Tensor) -> Tensor:
        """k + alpha S(x^2) of (N, C, H, W)."""
        return self.sum(x.square(), self.alpha) + self.k

    def kernels(self, x: Tensor) -> ModuleType | None:
        """The module with kernels for this input; None where PyTorch's operations do it."""
        if not self.compiled or _layout(x) is None or torch.compiler.is_compiling():
            return None
        module = triton_kernels.load("repro.model.fast.lrn_triton") if x.is_cuda else lrn_cpu
        return module if module is not None and module.serves(self, x) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        return _LocalResponseNorm.apply(x, self)

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        window = f"{self.n}x{self.n} pixels" if self.pixels else f"{self.n} maps"
        return f"{window}, alpha={self.alpha:g}, beta={self.beta:g}, k={self.k:g}, columns={self.columns}"


def from_config(config: NormConfig, columns: int) -> LocalResponseNorm:
    """The layer of a configuration in a net of that many columns."""
    pixels = config.neighbourhood is Neighbourhood.pixels
    neighbours = config.n**2 if pixels else config.n
    alpha = config.alpha / neighbours if config.alpha_over_n else config.alpha
    window_columns = columns if config.within_column else 1
    return LocalResponseNorm(config.n, alpha, config.beta, config.k, window_columns, pixels)


def same_map_after_conv2() -> LocalResponseNorm:
    """The authors' third norm, `cnorm2` of layers-145.cfg:107-117: scale 1e-3 over 25 pixels, power .75, constant 1."""
    return LocalResponseNorm(n=5, alpha=1e-3 / 25, beta=0.75, k=1.0, pixels=True)
