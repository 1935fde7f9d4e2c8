"""Batches of a packed store: the order of the training images, their augmentation, and the crops at test time."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from repro.config import Config, reached
from repro.data.augmentation import Draw, Windows, color_draws, random_windows
from repro.data.prefetch import DRAWS_AHEAD, prefetched, prefetched_crops, prefetched_to_gpu
from repro.data.preprocess import Pixels, on_device, places_of
from repro.data.store import ImageData, Split
from repro.distributed import SINGLE, World


def held_out_count(config: Config, images: int) -> int:
    """Size of the minival that is cut from so many training images."""
    return max(1, round(images * config.data.minival)) if config.data.minival else 0


def held_out(config: Config, data: ImageData) -> tuple[Split, Split | None]:
    """The training images, and the minival cut from them by the seed (None where `data.minival` is 0)."""
    if config.data.minival == 0:
        return data.train, None
    order = np.random.default_rng(config.seed).permutation(len(data.train.labels))
    count = held_out_count(config, len(order))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return data.train.subset(kept), data.train.subset(held)


def epoch_seed(seed: int, epoch: int, stream: str) -> int:
    """Seed of what is random in one epoch, so that a resumed run needs no generator's state.

    `order` of the images, their `augmentation` and `dropout` have a stream each.
    """
    number = ("order", "augmentation", "dropout").index(stream)
    return int(np.random.SeedSequence([seed, epoch, number]).generate_state(1)[0])


def training_batches(
    config: Config, split: Split, pixels: Pixels, epoch: int, world: World = SINGLE
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches: pixels (N, 3, crop, crop), labels (N,), on the device.

    The last batch is smaller where the batch size does not divide the number of images. Each of several processes
    gets its rows of every batch, cut and augmented as in one that gets them all.
    """
    draws = _training_draws(config, len(split.labels), pixels.border, epoch)
    return _batches(split, pixels, (draw.part(world.shard(len(draw.indices))) for draw in draws))


def _training_draws(config: Config, count: int, border: int, epoch: int) -> Iterator[Draw]:
    batch = config.train.batch_size
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch if config.data.shuffle else 0, "order"))
    order = torch.randperm(count, generator=generator).numpy()
    generator.manual_seed(epoch_seed(config.seed, epoch, "augmentation"))
    steps = -(-count // batch)
    for step, start in enumerate(range(0, count, batch), epoch * steps):
        indices = order[start : start + batch]
        windows = random_windows(config.augment, len(indices), border, generator)
        late = reached(config.augment.color_noise_off_at, step, steps * config.train.epochs)
        yield Draw(indices, windows, None if late else color_draws(config.augment, len(indices), generator))


def fixed_batches(
    split: Split, pixels: Pixels, place: tuple[int, int, bool], indices: np.ndarray, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images at `indices` in their order, all cut at one place (top, left, mirrored)."""
    return _batches(split, pixels, _fixed_draws(place, indices, batch))


def _fixed_draws(place: tuple[int, int, bool], indices: np.ndarray, batch: int) -> Iterator[Draw]:
    top, left, mirrored = place
    for start in range(0, len(indices), batch):
        chosen = indices[start : start + batch]
        full = torch.full((len(chosen),), 0)
        yield Draw(chosen, Windows(full + top, full + left, torch.full((len(chosen),), mirrored)))


def _batches(split: Split, pixels: Pixels, draws: Iterator[Draw]) -> Iterator[tuple[Tensor, Tensor]]:
    if pixels.device.type == "cuda":
        yield from _gpu_batches(split, pixels, draws)
        return
    for draw, crops in prefetched_crops(split, draws, pixels.crop, pinned=False):
        yield pixels.prepare(crops, draw.windows, draw.noise), torch.from_numpy(split.labels[draw.indices])


def _gpu_batches(split: Split, pixels: Pixels, draws: Iterator[Draw]) -> Iterator[tuple[Tensor, Tensor]]:
    """Does as `_batches`; a thread makes the draws ahead, and those of a batch cross the bus as one small tensor."""
    images = split.images
    if isinstance(images, Tensor):  # on the device already
        packed = (_packed(draw, split, pixels, split.places(draw.indices)) for draw in draws)
        for numbers in prefetched(packed, DRAWS_AHEAD):
            yield _prepared(images, numbers, pixels)
        return
    cut = prefetched_crops(split, prefetched(draws, DRAWS_AHEAD), pixels.crop, pinned=True)
    for draw, crops in prefetched_to_gpu(cut, pixels.device):
        numbers = _packed(draw, split, pixels, np.arange(len(draw.indices)))
        yield _prepared(crops.permute(0, 2, 3, 1), numbers, pixels)


def _packed(draw: Draw, split: Split, pixels: Pixels, rows: np.ndarray) -> list[Tensor]:
    """Packs a batch whose images lie at `rows` of a tensor: labels (N,), `places_of` them, and colour shifts, if any.

    All are int32, those of floats by their bits.
    """
    parts = [torch.from_numpy(split.labels[draw.indices]).int(), places_of(rows, draw.windows)]
    shifts = pixels.shifts(draw.noise)
    return parts if shifts is None else [*parts, shifts.view(torch.int32)]


def _prepared(images: Tensor, parts: list[Tensor], pixels: Pixels) -> tuple[Tensor, Tensor]:
    """The network's input and the labels, of images on the device (M, S, S, 3) and what `_packed` gave."""
    there = on_device(torch.cat([part.flatten() for part in parts]), pixels.device)
    sizes = [part.numel() for part in parts]
    labels, places, *shifts = (own.view(part.shape) for own, part in zip(there.split(sizes), parts, strict=True))
    noise = shifts[0].view(torch.float32) if shifts else None
    return pixels.prepare_on_device(images, places, noise), labels.long()
