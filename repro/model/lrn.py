"""Local response normalisation, section 3.3: b = a / (k + alpha * sum over n neighbours of a^2)^beta.

One operation serves every convention. The neighbours are n adjacent maps, within a column or across the
border between columns, or n x n pixels of the same map. `alpha` always multiplies the plain sum; who wants
the convention of Caffe, PyTorch or the authors' own code (`layer.py:1182-1186`) divides it by n first.

The window is symmetric, so the sum S is its own transpose and the gradient needs S once more:
    da = g d^-beta - 2 alpha beta a S(g a d^-(beta + 1)),    d = k + alpha S(a^2).

S is a convolution. What stands around it works on each number alone, and costs memory traffic only: compiled,
it runs in one pass a step, which makes the layer several times faster on a CPU; see `tests/benchmarks`.
"""

import logging
import os
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """At least fp32: squares of raw-pixel responses overflow fp16."""
    return x if x.dtype == torch.float64 else x.float()


def _power(d: Tensor, beta: float) -> Tensor:
    """d^-beta; for the paper's 0.75 two square roots, several times faster than pow."""
    if beta == 0.75:
        root = d.rsqrt()
        return root * root.sqrt()
    return d.pow(-beta)


def _square(x: Tensor) -> Tensor:
    return _wide(x).square()


def _normalize(x: Tensor, total: Tensor, k: float, beta: float) -> Tensor:
    """`total` is alpha S(a^2), here and below."""
    return (_wide(x) * _power(total + k, beta)).to(x.dtype)


def _weigh(x: Tensor, g: Tensor, total: Tensor, k: float, beta: float) -> Tensor:
    """g a d^-(beta + 1), of which the gradient needs the sum."""
    d = total + k
    return _wide(g) * _wide(x) * _power(d, beta) / d


def _gradient(x: Tensor, g: Tensor, total: Tensor, neighbours: Tensor, k: float, beta: float) -> Tensor:
    return (_wide(g) * _power(total + k, beta) - _wide(x) * neighbours).to(x.dtype)


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # torch looks for CUDA and says on stderr that there is none, once a process
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return torch.compile(function, dynamic=True)


def can_compile() -> bool:
    """Whether there is the C++ compiler that torch.compile needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def _full_precision(x: Tensor) -> torch.autocast:
    """Switches autocast off; shapes-only tensors on `meta` have none."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


class _LocalResponseNorm(torch.autograd.Function):
    """Keeps the input and the sum for the backward pass; sums are fp32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "LocalResponseNorm") -> Tensor:
        """The formula at the top of this file."""
        with _full_precision(x):
            total = layer.sum(layer.each(_square, x), layer.alpha)
            ctx.save_for_backward(x, total)
            ctx.layer = layer
            return layer.each(_normalize, x, total, k=layer.k, beta=layer.beta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient at the top of this file."""
        x, total = ctx.saved_tensors
        layer: LocalResponseNorm = ctx.layer
        constants = {"k": layer.k, "beta": layer.beta}
        with _full_precision(x):
            weighed = layer.each(_weigh, x, gradients[0], total, **constants)
            neighbours = layer.sum(weighed, 2 * layer.alpha * layer.beta)
            return layer.each(_gradient, x, gradients[0], total, neighbours, **constants), None


class LocalResponseNorm(nn.Module):
    """LRN of (N, C, H, W), same shape out. `alpha` multiplies the plain sum; a window is clipped at the edges."""

    def __init__(self, n: int, alpha: float, beta: float, k: float, columns: int = 1, pixels: bool = False) -> None:
        """`pixels`: the neighbours are n x n pixels of the same map instead of n maps of the same column."""
        super().__init__()
        self.n, self.alpha, self.beta, self.k = n, alpha, beta, k
        self.columns, self.pixels = columns, pixels
        self.compiled = False

    def sum(self, x: Tensor, scale: float) -> Tensor:
        """`scale` times the sum of (N, C, H, W) over each neighbourhood."""
        return _sum_over_pixels(x, self.n, scale) if self.pixels else _sum_over_maps(x, self.n, self.columns, scale)

    def each(self, function: Callable[..., Tensor], *tensors: Tensor, **constants: float) -> Tensor:
        """A function of single numbers on tensors (N, C, H, W); compiled, it sees them as they lie in memory."""
        first = tensors[0]
        if not self.compiled or first.is_meta:
            return function(*tensors, **constants)
        layout = torch.contiguous_format if first.is_contiguous() else torch.channels_last
        order = (0, 1, 2, 3) if first.is_contiguous() else (0, 2, 3, 1)
        flat = [x.detach().contiguous(memory_format=layout).permute(order).flatten() for x in tensors]
        out = _compiled(function)(*flat, **constants)
        return out.view([first.shape[axis] for axis in order]).permute([order.index(axis) for axis in range(4)])

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
