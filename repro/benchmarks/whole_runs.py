"""A run from end to end, as `repro.train` makes it: from the images in memory to the update, and evaluations.

The hours of the paper's training follow from it: its images do not fit a GPU's memory, so each batch is cut on the host
and crosses the bus, and each epoch ends with the centre crops of the validation set.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from repro.benchmarks import training_steps
from repro.benchmarks.alternating import Measure, Measured, Reasons, one_after_the_other
from repro.config import Config, Precision
from repro.data.on_gpu import on_gpu
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, Split, in_memory
from repro.model import build
from repro.profiling.timing import seconds
from repro.train.evaluation import evaluate
from repro.train.loop import Training
from repro.train.precision import set_precision

IMAGES = 1024
"""Kept in memory, 256 x 256 pixels each: four times what the caches of a large GPU hold."""
STEPS = 150
"""Of an epoch."""
EPOCHS = 5
"""The first does not count: the step is recorded in it."""
EVALUATED = 4096
"""Images of one evaluation."""
PAPER_IMAGES, PAPER_EPOCHS = 1_281_167, 90  # ILSVRC-2012's training set; section 5
PAPER_VAL_IMAGES = 50_000  # ILSVRC-2012's validation set
RUN_ON_HOST, CENTRE_ON_HOST = "run, images on the host", "centre crop, images on the host"


class _Training(Training):
    """Leaves no checkpoint: its time is no part of an epoch's."""

    def _save(self) -> None:
        pass


def race(device: torch.device) -> Measured:
    """Images/s of the step alone, of runs, and of evaluations; and the hours that the paper's training would take."""
    config = training_steps.configuration(training_steps.BATCH[device.type], Precision.bf16)
    config.train.epochs = EPOCHS
    data = random_images(config)
    makers: dict[str, Callable[[], Measure]] = {
        "training step": partial(training_steps.measure, training_steps.ours, config, device),
        "run, images on the GPU": partial(epochs, config, data, device, resident=True),
        RUN_ON_HOST: partial(epochs, config, data, device, resident=False),
        "centre crop": partial(evaluation, config, data, device),
        "ten crops": partial(evaluation, config, data, device, ten_crops=True),
        CENTRE_ON_HOST: partial(evaluation, config, data, device, resident=False),
    }
    failed: Reasons = {}
    rounds = one_after_the_other(makers, EPOCHS - 1, failed)
    for needed in (RUN_ON_HOST, CENTRE_ON_HOST):
        if needed in failed:
            failed["hours"] = failed[needed]
    if "hours" not in failed:
        rounds["hours"] = list(map(hours, rounds[RUN_ON_HOST], rounds[CENTRE_ON_HOST]))
    note = f"the full net in bf16, batch {config.train.batch_size}, {IMAGES} random images in memory"
    return Measured(rounds, note, failed=failed)


def random_images(config: Config) -> ImageData:
    """So many images of noise, met again and again in an epoch of `STEPS` steps."""
    generator, side = np.random.default_rng(0), config.data.image_size
    images = generator.integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)

    def split(count: int) -> Split:
        return Split(images, generator.integers(0, training_steps.CLASSES, count), np.arange(count) % IMAGES)

    return in_memory(split(STEPS * config.train.batch_size), split(EVALUATED), training_steps.CLASSES, content_hash="")


def epochs(config: Config, data: ImageData, device: torch.device, resident: bool) -> Measure:
    """Images/s of each epoch after the first of a run whose images lie on the GPU (`resident`) or on the host."""
    set_precision(config.train.precision, config.train.cudnn_benchmark)
    torch.manual_seed(0)
    short = replace(data, val=data.val.subset(np.arange(1)))  # a run of more evaluates after each epoch
    with tempfile.TemporaryDirectory() as folder:
        training = _Training(config, build(config, training_steps.CLASSES), short, device, Path(folder), {})
        if not resident:
            training.train_split = short.train
        training.run()
    return iter([row["images_per_second"] for row in training.curve[1:]]).__next__


def evaluation(
    config: Config, data: ImageData, device: torch.device, resident: bool = True, ten_crops: bool = False
) -> Measure:
    """Images/s of an evaluation; of ten crops an image counts once."""
    set_precision(config.train.precision, config.train.cudnn_benchmark)
    network = build(config, training_steps.CLASSES).to(device).to(memory_format=torch.channels_last)
    pixels, split = Pixels(config, data, device), _placed(data, device, resident).val

    def once() -> None:
        evaluate(network, split, pixels, config.train, ten_crops)

    once()
    return lambda: EVALUATED / seconds(once, 1, device)


def _placed(data: ImageData, device: torch.device, resident: bool) -> ImageData:
    return on_gpu(data, device) if resident and device.type == "cuda" else data


def hours(training_rate: float, evaluation_rate: float) -> float:
    """Computes the hours of the paper's training at these images/s, with an evaluation after each epoch."""
    return PAPER_EPOCHS * (PAPER_IMAGES / training_rate + PAPER_VAL_IMAGES / evaluation_rate) / 3600
