"""Crops in the plainest way, for tests of what is made of them."""

import numpy as np
import torch
from torch import Tensor

from repro.data.augmentation import Windows, cut_into
from repro.data.image_arrays import ImageArray


def cut(images: ImageArray, indices: np.ndarray, windows: Windows, crop: int) -> Tensor:
    """Crops of a store (M, S, S, 3): uint8 (N, 3, crop, crop), channels last in memory, not yet mirrored."""
    out = torch.empty(len(indices), crop, crop, 3, dtype=torch.uint8)
    cut_into(out.numpy(), images, indices, windows)
    return out.permute(0, 3, 1, 2)
