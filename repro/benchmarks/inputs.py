"""Images/s of the packed stores beside ImageFolder, v2 transforms and DataLoader; and memory over epochs."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from repro.benchmarks import jpeg_files, plain_pytorch, training_steps
from repro.benchmarks.alternating import Measured, in_turn, rate
from repro.config import Config, Precision
from repro.data.batches import training_batches
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, open_data
from repro.errors import RunFailure
from repro.experiments.compose import compose
from repro.train.memory import give_back
from repro.train.precision import has_bf16

IMAGES = {"train": 256, "val": 4}
REPEATS = 32
"""An epoch meets each image so often: its first and last batches shall not count for much."""
BATCH = 64
WORKERS = 2
ROUNDS = 5
LEAST_SECONDS, STEP_SECONDS = 3.0, 0.2
"""Of one value: of a stream, and of the training step."""
SECONDS = 70.0
"""No round begins later than this: a slow processor makes fewer."""
FIRST_BATCHES = 2
"""Not timed: workers start."""
EPOCHS = 20
"""Over which memory must stay flat."""
FORMATS = ("raw", "jpeg")
STATUS = Path("/proc/self/status")

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def race(device: torch.device) -> Measured:
    """Images/s of decoding, cutting, mirroring and normalising; and of the training step that consumes them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = jpeg_files.write(folder, **IMAGES)
        config = configuration(folder)
        streams: dict[str, Batches] = {
            f"{kind} store": _endless(configuration(folder, kind), device) for kind in FORMATS
        }
        streams["ImageFolder, v2, DataLoader"] = lambda: plain_pytorch.loader(
            folder / "train", config.data.image_size, config.data.crop, BATCH, WORKERS
        )
        measures = {name: _stream_rate(stream) for name, stream in streams.items()}
        precision = Precision.bf16 if has_bf16(device) else Precision.fp32
        step = training_steps.ours(training_steps.configuration(BATCH, precision), device)
        measures["training step"] = rate(step, BATCH, device, STEP_SECONDS)
        note = f"{images}, {WORKERS} workers, a step in {precision.name}"
        return Measured(in_turn(measures, ROUNDS, time.perf_counter() + SECONDS), note)


def memory(device: torch.device) -> Measured:
    """MiB that the process has taken more at the end of the last epoch than at the end of the second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = jpeg_files.write(folder, **IMAGES)
        grown = {f"{kind} store": [growth(configuration(folder, kind), device, EPOCHS)] for kind in FORMATS}
        return Measured(grown, f"{EPOCHS} epochs of {IMAGES['train']} images: {images}")


def configuration(folder: Path, kind: str = "raw") -> Config:
    """The full net's images from a folder, less the colour noise, which the peer does not do either."""
    config = compose(["setup=imagefolder", "ablation=no_pca_color", f"data.format={kind}", f"train.batch_size={BATCH}"])
    config.data.root, config.data.cache = str(folder), str(folder / f"packed-{kind}")
    return config


def growth(config: Config, device: torch.device, epochs: int) -> float:
    """MiB by which memory in use grows between the ends of the second and the last epoch of reading batches."""
    data = open_data(config.data)
    pixels = Pixels(config, data, device)
    taken = []
    for epoch in range(epochs):
        for _ in training_batches(config, data.train, pixels, epoch):
            pass
        give_back()  # what is kept, but free, depends on the threads' luck
        taken.append(own_mib())
    return taken[-1] - taken[1]


def own_mib() -> float:
    """MiB of this process's own memory, without the pages of mapped files, which the system takes back at will.

    RunFailure where the system does not tell.
    """
    if not STATUS.exists():
        raise RunFailure(f"{STATUS} tells how memory grows, and Linux alone has it: leave memory out of only=...")
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("RssAnon"))


def _endless(config: Config, device: torch.device) -> Batches:
    data: ImageData = open_data(config.data)
    pixels = Pixels(config, data, device)
    split = data.train.subset(np.tile(np.arange(len(data.train.labels)), REPEATS))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for epoch in itertools.count():
            yield from training_batches(config, split, pixels, epoch)

    return batches


def _stream_rate(stream: Batches, least: float = LEAST_SECONDS) -> Callable[[], float]:
    """A measure of images/s, once the workers have started; they end with it, so as not to disturb the next."""

    def measure() -> float:
        with closing(stream()) as batches:  # type: ignore[type-var]  # a generator
            for _ in itertools.islice(batches, FIRST_BATCHES):
                pass
            images, start = 0, time.perf_counter()
            while time.perf_counter() - start < least:
                images += len(next(batches)[1])
            return images / (time.perf_counter() - start)

    return measure
