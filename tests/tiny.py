"""Runs small enough for a test: a sixteenth of the width, 64-pixel crops, a few images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repro import run
from repro.command import exit_code
from repro.config import Config
from repro.data.store import ImageData, Split, in_memory
from repro.model import build
from repro.record import Record, find
from repro.train.loop import Training

SIZE, CROP = 72, 64  # pixels
IDENTITY = {"config": "c0ffee", "data": "beef", "device": "cpu"}
WORDS = (
    "setup=imagefolder",
    "model.scale=0.0625",
    "model.init.keep_gain=true",
    *(f"model.init.std.conv{number}=0.03" for number in (3, 4, 5)),
    f"data.image_size={SIZE}",
    f"data.crop={CROP}",
    "train.epochs=3",
    "train.batch_size=16",
    "train.fast_kernels=false",
    "train.device=cpu",
    "train.precision=fp32",  # the same on every processor
    "wandb.mode=disabled",
)
"""A command line as small, for the images of `make_image_folder`; it crosses all drops of the learning rate."""


@contextmanager
def one_thread() -> Iterator[None]:
    """For torch here and in subprocesses: on a busy machine two wait for each other longer than so little takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


def tiny_config() -> Config:
    """The paper's recipe at a sixteenth of the width, from weights that learn at once: one epoch at one rate."""
    config = Config()
    config.model.scale = 1 / 16
    config.model.init.keep_gain = True
    for layer in ("conv3", "conv4", "conv5"):
        setattr(config.model.init.std, layer, 0.03)
    config.data.image_size, config.data.crop = SIZE, CROP
    config.train.epochs, config.train.batch_size = 1, 16
    config.schedule.drops = []
    config.train.fast_kernels = False  # takes longer than the run
    return config


def cut_config(size: int, crop: int, batch: int) -> Config:
    """Four epochs of crops of so many pixels, for what reads images and trains nothing."""
    config = Config()
    config.data.image_size, config.data.crop = size, crop
    config.train.epochs, config.train.batch_size = 4, batch
    return config


def tiny_data(train: int = 40, val: int = 12, classes: int = 4, size: int = SIZE) -> ImageData:
    """Noisy images whose colour tells the class."""
    generator = np.random.default_rng(0)
    colors = generator.integers(40, 216, (classes, 1, 1, 3))

    def split(count: int) -> Split:
        labels = np.arange(count) % classes
        noise = generator.normal(0, 30, (count, size, size, 3))
        return Split(np.clip(colors[labels] + noise, 0, 255).astype(np.uint8), labels)

    return in_memory(split(train), split(val), classes, content_hash="beef")


def make_training(config: Config, folder: Path, data: ImageData | None = None, **callbacks: Any) -> Training:
    """A training on the CPU with a network drawn from the seed, as `repro.runner` makes it."""
    data = data or tiny_data()
    torch.manual_seed(config.seed)
    network = build(config, len(data.classes))
    return Training(config, network, data, torch.device("cpu"), folder, IDENTITY, **callbacks)


def make_image_folder(root: Path, train: int = 40, val: int = 12, classes: int = 2) -> Path:
    """`root` with train/<class>/ and val/<class>/, the images of `tiny_data`; `train` and `val` count all classes."""
    data = tiny_data(train, val, classes)
    for name, split in (("train", data.train), ("val", data.val)):
        for number, (image, label) in enumerate(zip(split.images[:], split.labels, strict=True)):
            path = root / name / data.classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def latest(*words: str) -> list[str]:
    """The words of a command line, less those that a later one of the same key replaces."""
    return list({word.partition("=")[0]: word for word in words}.values())


def run_command(*words: str) -> int:
    """`python -m repro.run` in this process, with the latest word of each key; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [run.__file__, *latest(*words)])
        patch.setattr(run, "_codes", [])
        patch.setenv("HYDRA_FULL_ERROR", "")  # so that the command's own value is forgotten
        try:
            return exit_code(run.main) or max(run._codes, default=0)
        except SystemExit as end:  # Ctrl-C
            return int(end.code or 0)


def only_record(results_dir: Path) -> Record:
    """The one record in a results folder."""
    (record,) = find(results_dir)
    return record


def content(record: Record) -> dict[str, Any]:
    """Everything in a record's files that the same seed must reproduce: not times, words, commit and W&B's id."""
    plain = asdict(record)
    for key in ("cost", "finished", "command", "chosen", "code", "wandb_id", "folder"):
        del plain[key]
    del plain["config"]["results_dir"]
    curve = [
        {key: value for key, value in row.items() if key not in ("images_per_second", "minutes")}
        for row in record.curve()
    ]
    return plain | {"curve": curve, "correct": {mode: bits.tolist() for mode, bits in record.correct().items()}}
