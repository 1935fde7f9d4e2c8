"""Draws of a training batch, sections 2 and 4.1: crops, mirror images and colour noise; and the cutting of crops.

A store holds images (N, S, S, 3) as uint8. A training batch draws, for each image or for each `share`
consecutive images, one place and one flip, and for each image one colour shift; the arithmetic then runs on
whole tensors, on the device. Random numbers come from the generator given, never from a global one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.config import AugmentConfig, ColorNoise
from repro.data.image_arrays import ImageArray


@dataclass(frozen=True)
class Windows:
    """The windows of a batch: top and left corners (N,) in pixels, and which images are mirrored (N,)."""

    tops: Tensor
    lefts: Tensor
    flips: Tensor


def random_windows(config: AugmentConfig, count: int, border: int, generator: torch.Generator) -> Windows:
    """One of (border + 1)^2 places and a mirror image or not, for each image or each `share` consecutive ones.

    With 256-pixel images and 224-pixel crops the border is 32 and an image has 33 x 33 x 2 = 2,178 views, as in
    the authors' code (convdata_jpeg.py:239); section 4.1 says 2,048.
    """
    draws = -(-count // config.share)
    places = torch.randint(0, border + 1, (2, draws), generator=generator)
    if not config.random_crop:
        places.fill_(border // 2)
    flips = torch.rand(draws, generator=generator) < 0.5 if config.flip else torch.zeros(draws, dtype=torch.bool)
    tops, lefts, flips = (value.repeat_interleave(config.share)[:count] for value in (*places, flips))
    return Windows(tops, lefts, flips)


def ten_windows(border: int) -> list[tuple[int, int, bool]]:
    """The four corners and the centre, and their mirror images (section 4.1), in the authors' order
    (convdata_jpeg.py:224-236): (top, left, mirrored)."""
    corners = [(0, 0), (0, border), (border // 2, border // 2), (border, 0), (border, border)]
    return [(top, left, flip) for flip in (False, True) for top, left in corners]


def cut_into(out: np.ndarray, images: ImageArray, indices: np.ndarray, windows: Windows) -> None:
    """Writes crops (N, crop, crop, 3) of a store (M, S, S, 3), not yet mirrored.

    Copying and decoding leave the interpreter to other threads.
    """
    crop = out.shape[1]
    for place, index, top, left in zip(out, indices, windows.tops.tolist(), windows.lefts.tolist(), strict=True):
        place[...] = images[index, top : top + crop, left : left + crop]


def color_draws(config: AugmentConfig, count: int, generator: torch.Generator) -> Tensor | None:
    """N(0, 1) draws (N, 3), one a component and image; None where there is no noise."""
    if config.color_noise is ColorNoise.none:
        return None
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Draw:
    """The draws of a batch: images (N,) of a split, places, and colour noise (N, 3) or none."""

    indices: np.ndarray
    windows: Windows
    noise: Tensor | None = None

    def part(self, rows: slice) -> "Draw":
        """The draw of some of the images."""
        windows = Windows(self.windows.tops[rows], self.windows.lefts[rows], self.windows.flips[rows])
        return Draw(self.indices[rows], windows, None if self.noise is None else self.noise[rows])
