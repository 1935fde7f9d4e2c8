"""Small data sets stay in a GPU's memory, so that no batch crosses the bus."""

from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from repro.data.image_arrays import ImageArray
from repro.data.store import ImageData, Split

SHARE = 0.25  # of the free memory; the network needs the rest
CHUNK = 256  # images copied at a time


def resident(data: ImageData, device: torch.device) -> ImageData:
    """The data with its images on the GPU, where they take at most a quarter of its free memory; else as it is."""
    if device.type != "cuda":
        return data
    torch.cuda.empty_cache()  # what an earlier run of a sweep has left is free too
    free, _ = torch.cuda.mem_get_info(device)
    needed = sum(prod(split.images.shape) for split in (data.train, data.val))
    return on_gpu(data, device) if needed <= SHARE * free else data


def on_gpu(data: ImageData, device: torch.device) -> ImageData:
    """The data with its images as uint8 tensors (M, S, S, 3) on the device; JPEG files decoded."""
    return replace(data, train=_moved(data.train, device), val=_moved(data.val, device))


def _moved(split: Split, device: torch.device) -> Split:
    return split if isinstance(split.images, Tensor) else replace(split, images=_copy(split.images, device))


def _copy(images: ImageArray, device: torch.device) -> Tensor:
    copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(copy), CHUNK):
        chunk = np.array(images[start : start + CHUNK])  # writable, as torch asks
        copy[start : start + CHUNK] = torch.from_numpy(chunk)
    return copy
