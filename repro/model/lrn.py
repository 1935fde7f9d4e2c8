"""Local response normalisation, section 3.3: b = a / (k + alpha * sum over n neighbours of a^2)^beta.

One operation serves every convention. The neighbours are n adjacent maps, within a column or across the
border between columns, or n x n pixels of the same map. `alpha` always multiplies the plain sum; who wants
the convention of Caffe, PyTorch or the authors' own code (`layer.py:1182-1186`) divides it by n first.

The window is symmetric, so the sum S is its own transpose and the gradient needs S once more:
    da = g d^-beta - 2 alpha beta a S(g a d^-(beta + 1)),    d = k + alpha S(a^2).

The formulas stand below in PyTorch's operations, for every device, type and convention. `fast/lrn.py` has kernels that
read and write each number once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from repro.config import Neighbourhood, NormConfig


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
    """Converts to fp32 at least, for squares of raw-pixel responses overflow fp16."""
    return x if x.dtype == torch.float64 else x.float()


def _power(d: Tensor, beta: float) -> Tensor:
    """d^-beta; for the paper's two square roots, several times faster than pow."""
    if beta == 0.75:
        root = d.rsqrt()
        return root * root.sqrt()
    return d.pow(-beta)


def _full_precision(x: Tensor) -> torch.autocast:
    """Switches autocast off; shapes-only tensors on `meta` have none."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


class _LocalResponseNorm(torch.autograd.Function):
    """Keeps the input alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "LocalResponseNorm") -> Tensor:
        """The formula at the top of this file."""
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer.normalised(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient at the top of this file."""
        (x,) = ctx.saved_tensors
        gradient: Tensor = ctx.layer.gradient(x, gradients[0])
        return gradient, None


class LocalResponseNorm(nn.Module):
    """LRN of (N, C, H, W), same shape out. `alpha` multiplies the plain sum; a window is clipped at the edges."""

    def __init__(self, n: int, alpha: float, beta: float, k: float, columns: int = 1, pixels: bool = False) -> None:
        """`pixels`: the neighbours are n x n pixels of the same map instead of n maps of the same column."""
        super().__init__()
        self.n, self.alpha, self.beta, self.k = n, alpha, beta, k
        self.columns, self.pixels = columns, pixels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        return _LocalResponseNorm.apply(x, self)

    def normalised(self, x: Tensor) -> Tensor:
        """b of the formula, for a = (N, C, H, W)."""
        with _full_precision(x):
            wide = _wide(x)
            return (wide * _power(self._denominator(wide), self.beta)).to(x.dtype)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """da of the formula, for a = `x` and the gradient `g` of b, both (N, C, H, W)."""
        with _full_precision(x):
            wide = _wide(x)
            d = self._denominator(wide)
            scaled = _wide(g) * _power(d, self.beta)
            neighbours = self._sum(scaled * wide / d, 2 * self.alpha * self.beta)
            return (scaled - wide * neighbours).to(x.dtype)

    def _sum(self, x: Tensor, scale: float) -> Tensor:
        """`scale` times the sum of (N, C, H, W) over each neighbourhood."""
        return _sum_over_pixels(x, self.n, scale) if self.pixels else _sum_over_maps(x, self.n, self.columns, scale)

    def _denominator(self, x: Tensor) -> Tensor:
        """k + alpha S(x^2) of (N, C, H, W)."""
        return self._sum(x.square(), self.alpha) + self.k

    def extra_repr(self) -> str:
        """Describes the layer for `print(network)`."""
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
