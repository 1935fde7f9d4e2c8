"""Crops, mirror images and colour noise, sections 2 and 4.1, for a whole batch at once.

A store holds images (N, S, S, 3) as uint8. A training batch draws, for each image or for each `share`
consecutive images, one place and one flip, and for each image one colour shift; the arithmetic then runs on
whole tensors, on the device. Random numbers come from the generator given, never from a global one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.config import AugmentConfig, ColorNoise, Config, Mean
from repro.data.store import ImageData


@dataclass(frozen=True)
class Windows:
    """Where a batch is cut out: top and left corners (N,) in pixels, and which images are mirrored (N,)."""

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


def cut(images: np.ndarray, indices: np.ndarray, windows: Windows, crop: int) -> Tensor:
    """Crops of a store (M, S, S, 3): uint8 (N, 3, crop, crop), channels last in memory, not yet mirrored."""
    out = np.empty((len(indices), crop, crop, 3), np.uint8)
    for place, index, top, left in zip(out, indices, windows.tops.tolist(), windows.lefts.tolist(), strict=True):
        place[...] = images[index, top : top + crop, left : left + crop]
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class Pixels:
    """Turns uint8 crops into the network's input: mean, mirror images, colour noise, scale; on one device."""

    def __init__(self, config: Config, data: ImageData, device: torch.device) -> None:
        """Takes mean image and principal components from the training set of `data`."""
        self.augment, self.mean_kind, self.crop = config.augment, config.data.mean, config.crop
        mean = data.mean
        if self.mean_kind is Mean.channel:
            mean = np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)
        self.mean = torch.from_numpy(np.array(mean, np.float32)).permute(2, 0, 1).to(device)
        self.border = self.mean.shape[1] - self.crop
        self.components = torch.from_numpy(self._components(data)).to(device)
        self.deviation = None
        if config.data.unit_variance:
            self.deviation = torch.from_numpy(data.channel_std).float()[:, None, None].to(device)
        self.device = device

    def _components(self, data: ImageData) -> np.ndarray:
        """Columns: principal components of RGB, each as long as its noise's unit, in grey levels (0-255).

        Section 4.1 scales with the eigenvalue, the authors' code with its square root (convdata_jpeg.py:57-66).
        Eigenvalues are those of pixels between 0 and 1, brought back to grey levels; on 0-255 pixels the first
        would shift an image by thousands of levels.
        """
        if self.augment.color_noise is ColorNoise.eigenvalue:
            return data.pca_vectors * data.pca_deviations**2 / 255
        return data.pca_vectors * data.pca_deviations

    def _mean_windows(self, windows: Windows) -> Tensor:
        """The mean under each crop, (N, 3, crop, crop) or one for all."""
        if self.mean_kind is not Mean.image:
            start = self.border // 2
            return self.mean[:, start : start + self.crop, start : start + self.crop]
        views = self.mean.unfold(1, self.crop, 1).unfold(2, self.crop, 1)
        return views[:, windows.tops.to(self.device), windows.lefts.to(self.device)].transpose(0, 1)

    def prepare(self, crops: Tensor, windows: Windows, noise: Tensor | None = None) -> Tensor:
        """uint8 (N, 3, crop, crop) to float of the same shape. `noise`: N(0, 1) draws (N, 3), none at test."""
        x = crops.to(self.device, non_blocking=True).float()
        mirrors_alone = self.mean_kind is Mean.image_centre  # the authors mirror first (convdata_jpeg.py:95, 238-246)
        if not mirrors_alone:
            x = x.sub_(self._mean_windows(windows))
        mirrored = windows.flips.to(self.device)
        if bool(windows.flips.any()):
            x[mirrored] = x[mirrored].flip(3)
        if mirrors_alone:
            x = x.sub_(self._mean_windows(windows))
        if noise is not None:
            amounts = noise.to(self.device, torch.float64) * self.augment.color_noise_sigma
            x.add_((amounts @ self.components.T).float()[:, :, None, None])
            if self.augment.color_noise_divisor != 1:
                x.div_(self.augment.color_noise_divisor)
        return x if self.deviation is None else x.div_(self.deviation)


def color_draws(config: AugmentConfig, count: int, generator: torch.Generator) -> Tensor | None:
    """N(0, 1) draws (N, 3), one a component and image; None where there is no noise."""
    if config.color_noise is ColorNoise.none:
        return None
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)
