"""The CUDA kernels of max-pooling, in Triton: forward and backward pass, each over memory once.

In channels-last the maps of a pixel lie side by side, and a thread takes the 4 or 8 of them that 16 bytes hold.
Forward, it looks through one window, and keeps beside the maximum the winner's place within the window, one byte.
Backward, it takes the stride x stride pixels at whose first a window begins. It loads each window that holds any of
them once; which place a pixel has within a window is known when the kernel is compiled; and each number is written
once, zeros too. The gradients that meet in a pixel are added in fp32, in the order of their windows.

What has no kernel (maps apart as in NCHW, maps that 16 bytes do not divide, windows of more than 5x5 pixels) goes by
PyTorch's operation.
"""

# mypy: disable-error-code="assignment, no-untyped-def, var-annotated"

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.model.fast.pool import MaxPool

TYPES = (torch.float32, torch.bfloat16, torch.float16)
BYTES = 16
"""The most that a thread loads by one instruction."""
ROWS = 128
"""Threads of a program, with a vector of maps each."""
LARGEST = 5
"""Pixels on a side of a window: kernels are written out place by place."""
NUMBERS = 2**31
"""Places are counted in 32 bits."""
OPTIONS = {"enable_fp_fusion": False}
"""Of the compiler: there are no products to fuse; Triton 3.9 warns where this is left open."""


def serves(layer: MaxPool, x: Tensor) -> bool:
    """Tells whether there are kernels for this layer and tensor (N, C, H, W)."""
    known = x.is_cuda and x.dtype in TYPES and x.dim() == 4 and 0 < x.numel() < NUMBERS
    if not known or layer.kernel_size > LARGEST or layer.stride > LARGEST:
        return False
    there = min(layer.places(side) for side in x.shape[2:]) > 0
    return there and x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] % _vector(x) == 0


def forward(layer: MaxPool, x: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima of (N, C, H, W), channels last in memory, and the winners' places, rows first, uint8."""
    images, maps, height, width = x.shape
    shape = (images, maps, layer.places(height), layer.places(width))
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    winners = torch.empty_like(y, dtype=torch.uint8)
    vectors, fixed = y.numel() // _vector(x), _fixed(layer, x.shape, _vector(x))
    _forward[(triton.cdiv(vectors, ROWS),)](x, y, winners, vectors, **fixed, **OPTIONS)
    return y, winners


def backward(layer: MaxPool, winners: Tensor, gradient: Tensor, shape: torch.Size) -> Tensor:
    """The input's gradient, of that shape, from the output's; all are channels last in memory."""
    out = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    images, maps, height, width = shape
    blocks = images * triton.cdiv(height, layer.stride) * triton.cdiv(width, layer.stride)
    vectors, fixed = blocks * maps // _vector(out), _fixed(layer, shape, _vector(out))
    _backward[(triton.cdiv(vectors, ROWS),)](gradient, winners, out, vectors, **fixed, **OPTIONS)
    return out


def _vector(x: Tensor) -> int:
    """Maps of a thread."""
    return BYTES // x.element_size()


def _fixed(layer: MaxPool, shape: torch.Size, vector: int) -> dict[str, int]:
    """The sizes fixed when a kernel is compiled, for inputs of that shape."""
    _, maps, height, width = shape
    windows = {"size": layer.kernel_size, "stride": layer.stride}
    places = {"out_height": layer.places(height), "out_width": layer.places(width)}
    threads = {"of_maps": maps // vector, "vector": vector, "rows": ROWS}
    return windows | {"height": height, "width": width} | places | threads


@triton.jit
def _numbers(at, vector: tl.constexpr):
    """Computes where the numbers of each vector lie, (rows, vector)."""
    return at[:, None] * vector + tl.arange(0, vector)[None, :]


@triton.jit
def _wide(x):
    """Converts to fp32, bf16 by its bits: else the compiler compares in bf16, in 600 instructions of sm_90, not 464."""
    if x.dtype == tl.bfloat16:
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def _forward(
    x, y, winners, vectors,
    size: tl.constexpr, stride: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
    out_height: tl.constexpr, out_width: tl.constexpr, of_maps: tl.constexpr, vector: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    there, maps, window = row < vectors, row % of_maps, row // of_maps
    left, top = window % out_width * stride, window // out_width % out_height * stride
    first = (window // (out_width * out_height) * height + top) * width + left
    best = _wide(tl.load(x + _numbers(first * of_maps + maps, vector), there[:, None], 0.0))
    winner = tl.zeros((rows, vector), tl.int32)
    for place in tl.static_range(1, size * size):
        within = there & (top + place // size < height) & (left + place % size < width)
        pixel = first + (place // size * width + place % size)
        a = _wide(tl.load(x + _numbers(pixel * of_maps + maps, vector), within[:, None], -float("inf")))
        wins = (a > best) | (a != a)
        best = tl.where(wins, a, best)
        winner = tl.where(wins, place, winner)
    out = _numbers(row, vector)
    tl.store(y + out, best.to(y.dtype.element_ty), there[:, None])
    tl.store(winners + out, winner.to(tl.uint8), there[:, None])


@triton.jit
def _add(
    total, g, won, pixel: tl.constexpr, k: tl.constexpr,
    size: tl.constexpr, stride: tl.constexpr, reach: tl.constexpr,
):  # fmt: skip
    """The gradient of a pixel of the block with that of window `k` added, where it won that."""
    down: tl.constexpr = pixel // stride + (reach - 1 - k // reach) * stride
    right: tl.constexpr = pixel % stride + (reach - 1 - k % reach) * stride
    if (down < size) & (right < size):
        return total + tl.where(won == down * size + right, g, 0.0)
    else:
        return total


@triton.jit
def _backward(
    gradient, winners, out, vectors,
    size: tl.constexpr, stride: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
    out_height: tl.constexpr, out_width: tl.constexpr, of_maps: tl.constexpr, vector: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    down: tl.constexpr = (height + stride - 1) // stride
    across: tl.constexpr = (width + stride - 1) // stride
    reach: tl.constexpr = (size + stride - 1) // stride  # windows along a side that a pixel may be in
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    there, maps, block = row < vectors, row % of_maps, row // of_maps
    image, i, j = block // (across * down), block // across % down, block % across
    g, won = (), ()
    for k in tl.static_range(reach * reach):  # the last is the window that begins where the block does
        up, left = i - (reach - 1 - k // reach), j - (reach - 1 - k % reach)
        within = there & (up >= 0) & (up < out_height) & (left >= 0) & (left < out_width)
        at = _numbers(((image * out_height + up) * out_width + left) * of_maps + maps, vector)
        g = g + (tl.load(gradient + at, within[:, None], 0.0).to(tl.float32),)  # noqa: RUF005
        won = won + (tl.load(winners + at, within[:, None], 0).to(tl.int32),)  # noqa: RUF005
    for pixel in tl.static_range(stride * stride):
        total = tl.zeros((rows, vector), tl.float32)
        for k in tl.static_range(reach * reach):
            total = _add(total, g[k], won[k], pixel, k, size, stride, reach)
        below, right = i * stride + pixel // stride, j * stride + pixel % stride
        within = there & (below < height) & (right < width)
        at = _numbers(((image * height + below) * width + right) * of_maps + maps, vector)
        tl.store(out + at, total.to(out.dtype.element_ty), within[:, None])
