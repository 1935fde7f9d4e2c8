"""Images/s of a run's batches on a GPU, from indices to what the network takes, beside a copy of as many bytes."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from repro.benchmarks import training_steps, whole_runs
from repro.benchmarks.alternating import Measure, Measured, Reasons, one_after_the_other, rate
from repro.config import Config, Precision
from repro.data.batches import training_batches
from repro.data.on_gpu import on_gpu
from repro.data.preprocess import Pixels
from repro.data.store import ImageData
from repro.profiling.timing import seconds

ROUNDS = 5
FIRST_BATCHES, BATCHES = 20, 200
"""Threads work ahead: the first batches are not timed, and many are."""
COPIED = 2**29
"""Bytes: more than a GPU's caches hold."""
LEAST_SECONDS = 0.1


def race(device: torch.device) -> Measured:
    """Images on the GPU, images in the host's memory, and a copy that reads and writes a batch's bytes."""
    config = training_steps.configuration(training_steps.BATCH[device.type], Precision.bf16)
    data = whole_runs.random_images(config)
    makers: dict[str, Callable[[], Measure]] = {
        "images on the GPU": partial(batches, config, data, device, resident=True),
        "images on the host": partial(batches, config, data, device, resident=False),
        "copy": partial(copy, config, data, device),
    }
    failed: Reasons = {}
    note = f"batches of {config.train.batch_size} from {whole_runs.IMAGES} random images in memory"
    return Measured(one_after_the_other(makers, ROUNDS, failed), note, failed=failed)


def batches(config: Config, data: ImageData, device: torch.device, resident: bool) -> Measure:
    """Images/s of batches made as in a run."""
    endless = _endless(config, data, device, resident)
    for _ in range(FIRST_BATCHES):
        next(endless)
    return lambda: BATCHES * config.train.batch_size / seconds(partial(next, endless), BATCHES, device)


def copy(config: Config, data: ImageData, device: torch.device) -> Measure:
    """Images/s of a copy: an image reads a byte a number and writes the numbers as the network takes them."""
    images, _ = next(_endless(config, data, device, resident=False))
    moved = 3 * config.crop**2 + images[0].nbytes
    source = torch.empty(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return rate(lambda: target.copy_(source), 2 * COPIED / moved, device, LEAST_SECONDS)


def _endless(config: Config, data: ImageData, device: torch.device, resident: bool) -> Iterator[tuple[Tensor, Tensor]]:
    pixels = Pixels(config, data, device)
    split = on_gpu(data, device).train if resident and device.type == "cuda" else data.train
    for epoch in itertools.count():
        whole = len(split.labels) // config.train.batch_size
        yield from itertools.islice(training_batches(config, split, pixels, epoch), whole)
