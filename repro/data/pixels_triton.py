"""The CUDA kernel that makes a network's input of images, in Triton: crop, mirror image, mean, noise, scale and type.

Each number of the output is one thread's: it reads the pixel that the crop and its mirror image put there and the mean
under that pixel, and writes once. PyTorch's operations would go over the batch ten times. Nothing is asked of the host,
so a CUDA graph can hold it. The order of the float operations is that of `preprocess.Pixels`, so the result is the
same to the bit.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512
"""Numbers of a program, of one image."""
OPTIONS = {"enable_fp_fusion": False}


def fill(
    out: Tensor,
    images: Tensor,
    places: Tensor,
    mean: Tensor,
    shifts: Tensor | None,
    divisor: float | None,
    deviation: Tensor | None,
    centred: bool,
) -> None:
    """Writes `out` (N, 3, crop, crop), channels last in memory, as `Pixels.prepare_on_device` says.

    `images` are whole squares (M, S, S, 3) or crops (N, crop, crop, 3), `mean` (S, S, 3), `deviation` 3 numbers; what
    is None is left out. `centred`: the mean is that of the image's centre, for a mirror image too.
    """
    crop = out.shape[2]
    grid = (triton.cdiv(3 * crop**2, BLOCK), len(out))
    sizes = {"crop": crop, "image_side": images.shape[1], "mean_side": mean.shape[0], "block": BLOCK}
    _fill[grid](out, images, places, mean, shifts, divisor, deviation, centred=centred, **sizes, **OPTIONS)


@triton.jit
def _fill(
    out, images, places, mean, shifts, divisor, deviation,
    centred: tl.constexpr, crop: tl.constexpr, image_side: tl.constexpr, mean_side: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(1)
    at = tl.program_id(0) * block + tl.arange(0, block)
    there = at < 3 * crop * crop
    y, x, colour = at // (3 * crop), at // 3 % crop, at % 3
    index, top = tl.load(places + 4 * number), tl.load(places + 4 * number + 1)
    left, mirrored = tl.load(places + 4 * number + 2), tl.load(places + 4 * number + 3)
    seen = tl.where(mirrored != 0, crop - 1 - x, x)
    in_mean = (top + y) * mean_side + left + seen
    in_image = in_mean if image_side == mean_side else y * crop + seen
    if centred:
        middle: tl.constexpr = (mean_side - crop) // 2
        in_mean = (middle + y) * mean_side + middle + x
    image = images + index.to(tl.int64) * (3 * image_side * image_side)
    value = tl.load(image + 3 * in_image + colour, there, 0).to(tl.float32)
    value -= tl.load(mean + 3 * in_mean + colour, there, 0.0)
    if shifts is not None:
        value += tl.load(shifts + 3 * number + colour)
    if divisor is not None:
        value = tl.div_rn(value, divisor)
    if deviation is not None:
        value = tl.div_rn(value, tl.load(deviation + colour))
    tl.store(out + number.to(tl.int64) * (3 * crop * crop) + at, value.to(out.dtype.element_ty), there)
