"""The CUDA kernels of LRN over maps, in Triton: forward and backward pass, each over memory once.

In channels-last the maps of a place lie side by side. A thread takes the 4 or 8 of them that 16 bytes hold, and reads
its left and right neighbours' too, which the first-level cache has. So all that its windows need is in its own
registers, and sums are plain additions: no exchange between threads, and no load that is not aligned. The gradient of
a map needs the denominators of its n neighbours. A thread computes them for its own maps and for n // 2 on either
side, 12 for 8 in place of 40, because special functions (two a denominator) and additions would else take longer than
memory does.

What has no kernel (maps apart as in NCHW, windows of more than 9 maps, columns that 4 does not divide) goes by
PyTorch's operations.
"""

# mypy: disable-error-code="assignment, no-untyped-def, var-annotated"

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.model.fast.lrn_window import BETA, Window

TYPES = (torch.float32, torch.bfloat16, torch.float16)
BYTES = 16
"""The most that a thread loads by one instruction."""
ROWS = 128
"""Threads of a program, with a row of maps each."""
OPTIONS = {"enable_fp_fusion": True}
"""Of the compiler: products may be added in one rounding, as on CPUs; Triton 3.9 warns where this is left open."""


def serves(layer: Window, x: Tensor) -> bool:
    """Tells whether there is a kernel for this layer and tensor (N, C, H, W)."""
    known = not layer.pixels and layer.beta == BETA and x.is_cuda and x.dtype in TYPES
    return known and x.is_contiguous(memory_format=torch.channels_last) and _vector(layer, x) is not None


def forward(layer: Window, x: Tensor) -> Tensor:
    """LRN of (N, C, H, W), channels last in memory; same shape, type and layout out."""
    out = torch.empty_like(x)
    grid, vectors, fixed = _work(layer, x)
    _forward[grid](x, out, vectors, layer.k, layer.alpha, **fixed, **OPTIONS)
    return out


def backward(layer: Window, x: Tensor, gradient: Tensor) -> Tensor:
    """The input's gradient (N, C, H, W) from that of the output, both laid out alike."""
    out = torch.empty_like(x)
    grid, vectors, fixed = _work(layer, x)
    fixed |= {"after_relu": layer.after_relu}
    _backward[grid](x, gradient, out, vectors, layer.k, layer.alpha, **fixed, **OPTIONS)
    return out


def _vector(layer: Window, x: Tensor) -> int | None:
    """Maps of a thread: they divide a column, and a neighbour's hold what the windows at the border need."""
    maps, reach = x.shape[1] // layer.columns, 2 * (layer.n // 2)
    return next((v for v in (BYTES // x.element_size(), 4, 8) if maps % v == 0 and reach <= v), None)


def _work(layer: Window, x: Tensor) -> tuple[tuple[int], int, dict[str, int]]:
    """Grid, vectors of the tensor, and the sizes fixed when a kernel is compiled."""
    vector = _vector(layer, x)
    assert vector is not None
    vectors, of_column = x.numel() // vector, x.shape[1] // layer.columns // vector
    fixed = {"half": layer.n // 2, "of_column": of_column, "rows": ROWS, "vector": vector}
    return (triton.cdiv(vectors, ROWS),), vectors, fixed


@triton.jit
def _numbers(x, rows: tl.constexpr, vector: tl.constexpr):
    """The numbers of each row of (rows, vector), one behind the other: as many tensors (rows,)."""
    even, odd = tl.split(tl.reshape(x, (rows, vector // 2, 2)))
    if vector == 4:
        a, c = tl.split(even)
        b, d = tl.split(odd)
        return a, b, c, d
    else:
        a_e, c_g = tl.split(tl.reshape(even, (rows, 2, 2)))
        b_f, d_h = tl.split(tl.reshape(odd, (rows, 2, 2)))
        a, e = tl.split(a_e)
        b, f = tl.split(b_f)
        c, g = tl.split(c_g)
        d, h = tl.split(d_h)
        return a, b, c, d, e, f, g, h


@triton.jit
def _row(numbers, rows: tl.constexpr, vector: tl.constexpr):
    """Puts together what `_numbers` took apart, (rows, vector)."""
    if vector == 4:
        a, b, c, d = numbers
        even, odd = tl.join(a, c), tl.join(b, d)
    else:
        a, b, c, d, e, f, g, h = numbers
        even = tl.reshape(tl.join(tl.join(a, e), tl.join(c, g)), (rows, 4))
        odd = tl.reshape(tl.join(tl.join(b, f), tl.join(d, h)), (rows, 4))
    return tl.reshape(tl.join(even, odd), (rows, vector))


@triton.jit
def _places(row, vector: tl.constexpr):
    """Computes where the numbers of each row lie, (rows, vector)."""
    return row.to(tl.int64)[:, None] * vector + tl.arange(0, vector)[None, :]


@triton.jit
def _load(x, row, vectors, of_column: tl.constexpr, rows: tl.constexpr, vector: tl.constexpr):
    """Three times `vector` numbers of a row: left neighbour's, own, right neighbour's; zero outside the column."""
    place, there, within = _places(row, vector), row < vectors, row % of_column
    left = tl.load(x + place - vector, (there & (within > 0))[:, None], 0.0).to(tl.float32)
    own = tl.load(x + place, there[:, None], 0.0).to(tl.float32)
    right = tl.load(x + place + vector, (there & (within < of_column - 1))[:, None], 0.0).to(tl.float32)
    return _numbers(left, rows, vector) + _numbers(own, rows, vector) + _numbers(right, rows, vector)


@triton.jit
def _inverse_root(a, at: tl.constexpr, k, alpha, half: tl.constexpr):
    """1 / sqrt(d) of the map at a position of `_load`."""
    total = a[at - half] * a[at - half]
    for near in tl.static_range(at - half + 1, at + half + 1):
        total += a[near] * a[near]
    return tl.rsqrt(k + alpha * total)


@triton.jit
def _forward(
    x, y, vectors, k, alpha,
    half: tl.constexpr, of_column: tl.constexpr, rows: tl.constexpr, vector: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    a = _load(x, row, vectors, of_column, rows, vector)
    b = ()
    for at in tl.static_range(vector, 2 * vector):
        root = _inverse_root(a, at, k, alpha, half)
        b = b + (a[at] * root * tl.sqrt(root),)  # noqa: RUF005
    tl.store(y + _places(row, vector), _row(b, rows, vector).to(y.dtype.element_ty), (row < vectors)[:, None])


@triton.jit
def _backward(
    x, gradient, out, vectors, k, alpha,
    after_relu: tl.constexpr, half: tl.constexpr, of_column: tl.constexpr, rows: tl.constexpr, vector: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    a = _load(x, row, vectors, of_column, rows, vector)
    g = _load(gradient, row, vectors, of_column, rows, vector)
    scaled, terms = (), ()
    for at in tl.static_range(vector - half, 2 * vector + half):
        root = _inverse_root(a, at, k, alpha, half)
        scaled = scaled + (g[at] * root * tl.sqrt(root),)  # noqa: RUF005
        terms = terms + (scaled[at - vector + half] * a[at] * root * root,)  # noqa: RUF005
    da = ()
    for at in tl.static_range(vector):
        neighbours = terms[at]
        for near in tl.static_range(at + 1, at + 2 * half + 1):
            neighbours += terms[near]
        result = scaled[at + half] - 2 * 0.75 * alpha * a[vector + at] * neighbours
        if after_relu:
            result = tl.where(a[vector + at] <= 0, 0.0, result)
        da = da + (result,)  # noqa: RUF005
    tl.store(out + _places(row, vector), _row(da, rows, vector).to(out.dtype.element_ty), (row < vectors)[:, None])
