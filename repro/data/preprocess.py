"""From uint8 crops to the network's input: mirror images, mean, colour noise, scale; on whole batches."""

import numpy as np
import torch
from torch import Tensor

from repro import triton_kernels
from repro.config import ColorNoise, Config, Mean, Precision
from repro.data.augmentation import Windows
from repro.data.store import ImageData


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, one that is there as it is; the host does not wait for a GPU."""
    if value.is_cuda:
        return value
    if device.type != "cuda":
        return value.to(device)
    return (value if value.is_pinned() else value.pin_memory()).to(device, non_blocking=True)


def _views(images: Tensor, crop: int) -> Tensor:
    """Every window of images (..., S, S, 3): (..., border + 1, border + 1, crop, crop, 3); nothing is copied."""
    return images.unfold(-3, crop, 1).unfold(-3, crop, 1).movedim(-3, -1)


class Pixels:
    """Turns uint8 images into the network's input: crops, mirror images, mean, colour noise, scale; on one device."""

    def __init__(self, config: Config, data: ImageData, device: torch.device) -> None:
        """Takes mean image and principal components from the training set of `data`."""
        self.augment, self.mean_kind, self.crop = config.augment, config.data.mean, config.crop
        mean = data.mean
        if self.mean_kind is Mean.channel:
            mean = np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)
        self.mean = on_device(torch.from_numpy(np.array([mean, mean[:, ::-1]], np.float32)), device)
        """The mean image and its mirror image, (2, S, S, 3)."""
        self.border = self.mean.shape[1] - self.crop
        self.components = torch.from_numpy(self._components(data))
        self.deviation = None
        if config.data.unit_variance:
            self.deviation = on_device(torch.from_numpy(data.channel_std).float(), device)
        self.device = device
        on_gpu = device.type == "cuda"
        self.dtype = torch.bfloat16 if on_gpu and config.train.precision is Precision.bf16 else torch.float32
        """What the network's first layer takes; on a CPU its own cast is as fast."""
        self.kernels = triton_kernels.load("repro.data.pixels_triton") if on_gpu and config.train.fast_kernels else None

    def _components(self, data: ImageData) -> np.ndarray:
        """Columns: principal components of RGB, each as long as its noise's unit, in grey levels (0-255).

        Section 4.1 scales with the eigenvalue, the authors' code with its square root (convdata_jpeg.py:57-66).
        Eigenvalues are those of pixels between 0 and 1, brought back to grey levels; on 0-255 pixels the first
        would shift an image by thousands of levels.
        """
        if self.augment.color_noise is ColorNoise.eigenvalue:
            return data.pca_vectors * data.pca_deviations**2 / 255
        return data.pca_vectors * data.pca_deviations

    def prepare(self, crops: Tensor, windows: Windows, noise: Tensor | None = None) -> Tensor:
        """Prepares uint8 (N, 3, crop, crop) on a CPU: float, same shape. `noise`: N(0, 1), (N, 3), none at test."""
        shifts = self.shifts(noise)
        x = self._one_by_one(crops.permute(0, 2, 3, 1), windows, shifts)
        return self._scaled(x, shifts is not None).permute(0, 3, 1, 2)

    def shifts(self, noise: Tensor | None) -> Tensor | None:
        """Colour shifts (N, 3) float32, in grey levels, of the draws (N, 3)."""
        if noise is None:
            return None
        return (noise.double() * self.augment.color_noise_sigma @ self.components.T).float()

    def prepare_on_device(self, images: Tensor, places: Tensor, shifts: Tensor | None = None) -> Tensor:
        """The network's input (N, 3, crop, crop), channels last in memory, of type `dtype`.

        All tensors lie on the device, and nothing is asked of the host. `images`: uint8 squares (M, S, S, 3), whole, or
        cut already, (N, crop, crop, 3). `places`: (N, 4) int32, see `places_of`; of crops, the index counts within
        `images`, and the window says which mean is theirs. `shifts`: (N, 3) float32, added to each pixel; none at test,
        where the noise's divisor is left out too.
        """
        shape = (len(places), 3, self.crop, self.crop)
        out = torch.empty(shape, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)
        if self.kernels is None:
            x = self._scaled(self._at_once(images, places, shifts), shifts is not None)
            return out.copy_(x.permute(0, 3, 1, 2))
        centred = self.mean_kind is Mean.image_centre
        self.kernels.fill(
            out, images, places, self.mean[0], shifts, self._divisor(shifts is not None), self.deviation, centred
        )
        return out

    def _divisor(self, noisy: bool) -> float | None:
        divisor = self.augment.color_noise_divisor
        return divisor if noisy and divisor != 1 else None

    def _scaled(self, x: Tensor, noisy: bool) -> Tensor:
        """(N, crop, crop, 3), in place."""
        divisor = self._divisor(noisy)
        if divisor is not None:
            x.div_(torch.full((), divisor, device=x.device))  # on a GPU a number would become its rounded inverse
        return x if self.deviation is None else x.div_(self.deviation)

    def _mean_windows(self, windows: Windows) -> Windows:
        """Finds the mean under each mirrored crop: `flips` says in which of the two mean images."""
        if self.mean_kind is Mean.image_centre:  # the authors mirror first (convdata_jpeg.py:95, 238-246)
            centre = torch.full_like(windows.tops, self.border // 2)
            return Windows(centre, centre, torch.zeros_like(windows.flips))
        lefts = torch.where(windows.flips, self.border - windows.lefts, windows.lefts)
        return Windows(windows.tops, lefts, windows.flips)

    def _one_by_one(self, crops: Tensor, windows: Windows, shifts: Tensor | None) -> Tensor:
        """(N, crop, crop, 3); an image at a time stays in a core's cache, which takes a third of the batch's time."""
        count, crop, row = len(crops), self.crop, 3 * self.crop
        x = torch.empty(count, crop, row)
        mean, means = self.mean.flatten(2), self._mean_windows(windows)
        columns = (means.tops, means.lefts, means.flips, windows.flips)
        places = zip(*(column.tolist() for column in columns), strict=True)
        rows = None if shifts is None else shifts.repeat(1, crop)
        for number, (out, image, (top, left, mirrored_mean, flip)) in enumerate(zip(x, crops, places, strict=True)):
            out.copy_((image.flip(1) if flip else image).reshape(crop, row))
            out.sub_(mean[int(mirrored_mean), top : top + crop, 3 * left : 3 * left + row])
            if rows is not None:
                out.add_(rows[number])
        return x.view(count, crop, crop, 3)

    def _at_once(self, images: Tensor, places: Tensor, shifts: Tensor | None) -> Tensor:
        """The same for the whole batch, of `prepare_on_device`'s images, in few operations."""
        index, tops, lefts, mirrored = places.long().unbind(1)
        windows = Windows(tops, lefts, mirrored.bool())
        whole = images.shape[1] == self.mean.shape[1]
        x = _views(images, self.crop)[index, tops, lefts] if whole else images[index]
        x = torch.where(windows.flips[:, None, None, None], x.flip(2), x).float()
        means = self._mean_windows(windows)
        x.sub_(_views(self.mean, self.crop)[means.flips.long(), means.tops, means.lefts])
        return x if shifts is None else x.add_(shifts[:, None, None])


def places_of(indices: np.ndarray, windows: Windows) -> Tensor:
    """Packs what is drawn of each image, (N, 4) int32: index, top and left corner in pixels, mirrored or not."""
    columns = (torch.from_numpy(indices), windows.tops, windows.lefts, windows.flips)
    return torch.stack([column.int() for column in columns], dim=1)
