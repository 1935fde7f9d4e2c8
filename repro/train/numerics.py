"""A fingerprint of the numerics: what a short, fixed training leaves, to the last bit.

Code, libraries and processors that compute the same bits have the same fingerprint, whatever the commit; another order
of additions changes it. It covers the paper's ingredients: two columns, LRN, overlapping pooling, dropout, crops,
mirror images and colour noise, the update rule, a drop of the rate. It is made on one thread: how many a run has
depends on how busy the machine is, and the record names them.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from repro.config import Config, LayerSizes, TrainConfig
from repro.data.store import ImageData, Split, in_memory
from repro.model import build
from repro.train.loop import Training

DIGITS = 16
"""Hexadecimal digits of the SHA-256 that are kept."""
_SIZES = LayerSizes(conv1=32, conv2=64, conv3=64, conv4=64, conv5=64, fc6=128, fc7=128)
"""Maps a column are multiples of 16, as the processors' fast kernels want them."""
_SIZE, _CROP, _CLASSES, _BATCH = 72, 64, 4, 16
_known: dict[str, str | None] = {}
"""By everything that it depends on: computed once a process."""


def fingerprint(train: TrainConfig, device: torch.device, folder: Path) -> str | None:
    """Computes the fingerprint of runs of this kind on this device; None where two passes of the same training differ.

    The process has the switches of `set_precision` on already. The budget of `train` does not count. `folder` takes a
    file that is removed again. Under a second on a CPU.
    """
    how = replace(
        train,
        epochs=2,
        stop_at_train_error=None,
        batch_size=_BATCH,
        micro_batch=None,
        checkpoint_activations=False,
    )
    key = f"{how} {device}"
    if key not in _known:
        found = {_once(how, device, folder) for _ in range(2 if device.type == "cuda" else 1)}
        _known[key] = found.pop()[:DIGITS] if len(found) == 1 else None
    return _known[key]


def _once(train: TrainConfig, device: torch.device, folder: Path) -> str:
    """Hash of weights and curve after two epochs of four steps, the last two at a lower rate."""
    config = Config(train=train)
    config.model.sizes, config.model.init.keep_gain = _SIZES, True
    config.data.image_size, config.data.crop = _SIZE, _CROP
    config.optimizer.lr, config.schedule.drops = 0.05, [0.75]
    data = _images()
    with (
        _one_thread(),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        tempfile.TemporaryDirectory(prefix="numerics-", dir=folder) as place,
    ):
        torch.manual_seed(0)
        training = Training(config, build(config, _CLASSES), data, device, Path(place), {})
        training.run()
    losses = [row[key] for row in training.curve for key in ("train_loss", "val_loss")]
    found = hashlib.sha256(np.array(losses).tobytes())
    for name, value in training.network.state_dict().items():
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _images() -> ImageData:
    """Noisy images whose colour tells the class: four batches, and one to validate on."""
    generator = np.random.default_rng(0)
    colours = generator.integers(40, 216, (_CLASSES, 1, 1, 3))

    def split(count: int) -> Split:
        labels = np.arange(count) % _CLASSES
        noise = generator.integers(-30, 31, (count, _SIZE, _SIZE, 3))
        return Split((colours[labels] + noise).clip(0, 255).astype(np.uint8), labels)

    return in_memory(split(4 * _BATCH), split(_BATCH), _CLASSES, content_hash="")
