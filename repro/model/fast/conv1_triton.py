"""The CUDA kernel that takes an image's pixels in blocks, in Triton: zeros around, type and order in one pass.

PyTorch's operations read and write the batch twice, and a third time to set the zeros. A row of a block is contiguous
before and after, in channels-last, so neighbouring threads read and write neighbouring numbers.
"""

# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers of a program, of one image."""
OPTIONS = {"enable_fp_fusion": False}


def space_to_depth(x: Tensor, before: int, height: int, width: int, side: int, kind: torch.dtype) -> Tensor:
    """Does as `conv1.space_to_depth`, for images on a GPU."""
    x = x.contiguous(memory_format=torch.channels_last)
    count, maps, rows, columns = x.shape
    shape = (count, side**2 * maps, height // side, width // side)
    out = torch.empty(shape, dtype=kind, device=x.device, memory_format=torch.channels_last)
    sizes = {"before": before, "maps": maps, "rows": rows, "columns": columns, "height": height, "width": width}
    grid = (triton.cdiv(height * width * maps, BLOCK), count)
    _blocks[grid](x, out, **sizes, side=side, block=BLOCK, **OPTIONS)
    return out


@triton.jit
def _blocks(
    x, out, before: tl.constexpr, maps: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
    height: tl.constexpr, width: tl.constexpr, side: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * block + tl.arange(0, block)
    image = tl.program_id(1).to(tl.int64)
    place, pixel = at // (side * side * maps), at // maps
    row = place // (width // side) * side + pixel // side % side - before
    column = place % (width // side) * side + pixel % side - before
    within = (row >= 0) & (row < rows) & (column >= 0) & (column < columns) & (at < height * width * maps)
    near = (row * columns + column) * maps + at % maps
    value = tl.load(x + image * (rows * columns * maps) + near, within, 0.0)
    tl.store(out + image * (height * width * maps) + at, value.to(out.dtype.element_ty), at < height * width * maps)
