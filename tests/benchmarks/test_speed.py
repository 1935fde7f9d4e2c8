"""Images per second of the parts that decide a run's speed, in the shapes of `setup=imagenette_small`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro import experiments
from repro.config import Config, Precision
from repro.data.augmentation import Pixels
from repro.data.batches import training_batches
from repro.data.store import ImageData, Split
from repro.model import build
from repro.model.lrn import LocalResponseNorm, can_compile
from repro.train.loop import Tally, Training

BATCH = 128
MAPS, SIDE = 48, 31  # conv1's output at half width on 128-pixel crops


Measure = Callable[[Callable[[], object], int], None]


@pytest.fixture
def config() -> Config:
    """The half-width net, fp32, so that it runs alike on every CPU."""
    config = experiments.compose(["setup=imagenette_small", "train.epochs=1000"])
    config.train.precision = Precision.fp32
    return config


@pytest.fixture
def data(config: Config) -> ImageData:
    """One batch of noise in the shape of the data set."""
    rng = np.random.default_rng(0)
    side = config.data.image_size
    split = Split(rng.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8), rng.integers(0, 10, BATCH))
    mean = np.full((side, side, 3), 127, np.float32)
    classes = tuple("abcdefghij")
    return ImageData(split, split, classes, mean, np.array([120.0, 30, 20]), np.eye(3), np.full(3, 60.0), "noise", ())


def _pytorch() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def _ours() -> nn.Module:
    return LocalResponseNorm(5, 1e-4, 0.75, 2.0)


def _compiled() -> nn.Module:
    layer = LocalResponseNorm(5, 1e-4, 0.75, 2.0)
    layer.compiled = True
    return layer


@pytest.mark.parametrize("make", [_pytorch, _ours, _compiled])
def test_lrn_forward_and_backward(benchmark_images: Measure, make: Callable[[], nn.Module]) -> None:
    if make is _compiled and not can_compile():
        pytest.skip("torch.compile needs a C++ compiler")
    x = torch.randn(BATCH, MAPS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    layout = torch.contiguous_format if make is _pytorch else torch.channels_last
    x = x.contiguous(memory_format=layout).requires_grad_()
    layer, gradient = make(), torch.ones_like(x)

    def both() -> Tensor:
        (result,) = torch.autograd.grad(layer(x), x, gradient)
        return result

    assert both().shape == x.shape
    benchmark_images(both, BATCH)


def test_training_step(benchmark_images: Measure, config: Config, data: ImageData, tmp_path: Path) -> None:
    network = build(config, len(data.classes))
    training = Training(config, network, data, torch.device("cpu"), tmp_path, {})
    training.schedule.set_rates(training.optimizer.param_groups, 0)
    images = torch.randn(BATCH, 3, config.crop, config.crop, generator=torch.Generator().manual_seed(0)) * 50
    images, labels = images.contiguous(memory_format=torch.channels_last), torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        training._step(images, labels, Tally.on(training.device))

    benchmark_images(step, BATCH)


def test_input_pipeline(benchmark_images: Measure, config: Config, data: ImageData) -> None:
    pixels = Pixels(config, data, torch.device("cpu"))

    def batch() -> Tensor:
        return next(training_batches(config, data.train, pixels, 0))[0]

    assert batch().shape == (BATCH, 3, config.crop, config.crop)
    benchmark_images(batch, BATCH)
