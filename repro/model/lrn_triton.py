"""The CUDA kernels of LRN over maps, in Triton: forward and backward read and write each number once.

A program holds some places of a tensor with all maps of one column. What a window needs of the neighbouring maps it
loads again, from the first-level cache, n numbers in the forward pass and 3 n - 1 in the backward pass, which computes
the denominators of the neighbours anew instead of storing them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.model.lrn_window import BETA, Window

TYPES = (torch.float32, torch.bfloat16, torch.float16)
NUMBERS = 2048
"""Numbers a program, about."""
OPTIONS = {"enable_fp_fusion": True}
"""Of the compiler: products may be added in one rounding, as on CPUs; Triton 3.9 warns where this is left open."""


def serves(layer: Window, x: Tensor) -> bool:
    """Whether there is a kernel for this layer and tensor (N, C, H, W)."""
    over_maps = not layer.pixels and x.shape[1] <= NUMBERS
    return over_maps and layer.beta == BETA and x.is_cuda and x.dtype in TYPES


def forward(layer: Window, x: Tensor) -> Tensor:
    """LRN of a dense (N, C, H, W); same shape, type and layout out."""
    out = torch.empty_like(x)
    grid, sizes, blocks = _tiles(layer, x)
    _forward[grid](x, out, *sizes, layer.k, layer.alpha, **blocks, **OPTIONS)
    return out


def backward(layer: Window, x: Tensor, gradient: Tensor) -> Tensor:
    """The input's gradient (N, C, H, W) from that of the output, both laid out alike."""
    out = torch.empty_like(x)
    grid, sizes, blocks = _tiles(layer, x)
    blocks |= {"after_relu": layer.after_relu}
    _backward[grid](x, gradient, out, *sizes, layer.k, layer.alpha, **blocks, **OPTIONS)
    return out


def _tiles(layer: Window, x: Tensor) -> tuple[tuple[int], tuple[int, int, int], dict[str, int]]:
    """Grid; places, positions and maps; sizes fixed when a kernel is compiled.

    A place's maps lie `positions` apart: side by side in channels-last, H W apart in NCHW.
    """
    maps, area = x.shape[1] // layer.columns, x.shape[2] * x.shape[3]
    positions = 1 if x.is_contiguous(memory_format=torch.channels_last) else area
    places = x.shape[0] * layer.columns * area
    block_maps = triton.next_power_of_2(maps)
    block_places = max(1, NUMBERS // block_maps)
    blocks = {"half": layer.n // 2, "block_places": block_places, "block_maps": block_maps}
    return (triton.cdiv(places, block_places),), (places, positions, maps), blocks


@triton.jit
def _place(places, positions, maps, block_places: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the places of this program begin, (block_places, 1), and which of them there are."""
    place = tl.program_id(0).to(tl.int64) * block_places + tl.arange(0, block_places)
    begin = place // positions * (positions * maps) + place % positions
    return begin[:, None], (place < places)[:, None]


@triton.jit
def _load(x, begin, there, channel, positions, maps, shift: tl.constexpr):  # type: ignore[no-untyped-def]
    """The maps `shift` further on, zero outside the column."""
    near = channel + shift
    return tl.load(x + begin + near * positions, there & (near >= 0) & (near < maps), 0.0).to(tl.float32)


@triton.jit
def _inverse_root(x, begin, there, channel, positions, maps, k, alpha, shift: tl.constexpr, half: tl.constexpr):  # type: ignore[no-untyped-def]
    """1 / sqrt(d) of the maps `shift` further on."""
    total = _load(x, begin, there, channel, positions, maps, shift - half)
    total *= total
    for offset in tl.static_range(1 - half, half + 1):
        a = _load(x, begin, there, channel, positions, maps, shift + offset)
        total += a * a
    return tl.rsqrt(k + alpha * total)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, y, places, positions, maps, k, alpha,
    half: tl.constexpr, block_places: tl.constexpr, block_maps: tl.constexpr,
):  # fmt: skip
    begin, there = _place(places, positions, maps, block_places)
    channel = tl.arange(0, block_maps)[None, :]
    a = _load(x, begin, there, channel, positions, maps, 0)
    root = _inverse_root(x, begin, there, channel, positions, maps, k, alpha, 0, half)
    b = a * root * tl.sqrt(root)
    tl.store(y + begin + channel * positions, b.to(y.dtype.element_ty), there & (channel < maps))


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, gradient, out, places, positions, maps, k, alpha,
    after_relu: tl.constexpr, half: tl.constexpr, block_places: tl.constexpr, block_maps: tl.constexpr,
):  # fmt: skip
    begin, there = _place(places, positions, maps, block_places)
    channel = tl.arange(0, block_maps)[None, :]
    a = _load(x, begin, there, channel, positions, maps, 0)
    g = _load(gradient, begin, there, channel, positions, maps, 0)
    root = _inverse_root(x, begin, there, channel, positions, maps, k, alpha, 0, half)
    scaled = g * root * tl.sqrt(root)
    neighbours = scaled * a * root * root
    for shift in tl.static_range(-half, half + 1):
        if shift != 0:
            a_near = _load(x, begin, there, channel, positions, maps, shift)
            g_near = _load(gradient, begin, there, channel, positions, maps, shift)
            root = _inverse_root(x, begin, there, channel, positions, maps, k, alpha, shift, half)
            neighbours += g_near * a_near * root * root * root * tl.sqrt(root)
    result = scaled - 2 * 0.75 * alpha * a * neighbours
    if after_relu:
        result = tl.where(a <= 0, 0.0, result)
    tl.store(out + begin + channel * positions, result.to(out.dtype.element_ty), there & (channel < maps))
