"""Images per second of the parts that decide a run's speed, in the shapes of `setup=imagenette_small`.

`python -m repro.bench` sets the same against their peers, and against the targets.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from repro.benchmarks import plain_pytorch, startup, training_steps
from repro.benchmarks.lrn import both_ways
from repro.config import Config, Precision
from repro.data.batches import training_batches
from repro.data.preprocess import Pixels
from repro.data.store import Split, in_memory
from repro.experiments.compose import compose
from repro.model import build
from repro.train.precision import arithmetic
from tests.tiny import make_image_folder

BATCH = 32
CLASSES = 10
CPU = torch.device("cpu")
LAYERS = ("conv1", "norm1", "pool1", "conv2", "norm2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")

Measure = Callable[[Callable[[], object], int], None]


@pytest.fixture(scope="module")
def config() -> Config:
    """The half-width net, fp32, so that it runs alike on every CPU."""
    config = compose(["setup=imagenette_small", f"train.batch_size={BATCH}", "optimizer.lr=1e-6"])
    config.train.precision = Precision.fp32
    return config


@pytest.fixture(scope="module")
def layers(config: Config) -> dict[str, tuple[nn.Module, Tensor]]:
    """Each layer by its name, and its input in a training step."""
    torch.manual_seed(0)
    network = build(config, CLASSES).to(memory_format=torch.channels_last)
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    for name, layer in [*network.features.named_children(), *network.classifier.named_children()]:
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: found.update({name: (layer, inputs[0])}))
    images = torch.randn(BATCH, 3, config.crop, config.crop) * 50
    network(images.contiguous(memory_format=torch.channels_last))
    return found


@pytest.mark.benchmark(max_time=0.1)
@pytest.mark.parametrize("name", LAYERS)
def test_layer(benchmark_images: Measure, layers: dict[str, tuple[nn.Module, Tensor]], name: str) -> None:
    layer, x = layers[name]
    run = both_ways(layer, x)
    assert run()[0].shape == x.shape
    benchmark_images(run, BATCH)


def test_lrn_of_pytorch(benchmark_images: Measure, layers: dict[str, tuple[nn.Module, Tensor]], config: Config) -> None:
    """Beside `test_layer[norm1]`."""
    x = layers["norm1"][1].contiguous()
    benchmark_images(both_ways(plain_pytorch.response_norm(config.model.norm), x), BATCH)


@pytest.mark.parametrize("space_to_depth", [True, False])
def test_conv1_in_bf16(benchmark_images: Measure, config: Config, space_to_depth: bool) -> None:
    """Over blocks of pixels, and pixel by pixel."""
    config = copy.deepcopy(config)
    config.train.fast_kernels = space_to_depth
    conv1 = build(config, CLASSES).features.conv1.to(memory_format=torch.channels_last)
    images = (torch.randn(BATCH, 3, config.crop, config.crop) * 50).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with arithmetic(CPU, Precision.bf16):
            out = conv1(images)
        out.backward(out.detach())

    benchmark_images(run, BATCH)


@pytest.mark.parametrize("make", [training_steps.ours, training_steps.plain])
def test_training_step(
    benchmark_images: Measure, config: Config, make: Callable[[Config, torch.device, int], training_steps.Step]
) -> None:
    benchmark_images(make(config, CPU, CLASSES), BATCH)


def test_packed_store(benchmark_images: Measure, config: Config) -> None:
    rng = np.random.default_rng(0)
    side = config.data.image_size
    split = Split(rng.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8), rng.integers(0, CLASSES, BATCH))
    data = in_memory(split, split, CLASSES, "noise")
    pixels = Pixels(config, data, CPU)

    def batch() -> Tensor:
        return next(training_batches(config, split, pixels, 0))[0]

    assert batch().shape == (BATCH, 3, config.crop, config.crop)
    benchmark_images(batch, BATCH)


def test_image_folder_of_torchvision(benchmark_images: Measure, config: Config, tmp_path: Path) -> None:
    """Beside `test_packed_store`, in one process."""
    folder = make_image_folder(tmp_path) / "train"
    batches: Iterator[tuple[Tensor, Tensor]] = plain_pytorch.loader(
        folder, config.data.image_size, config.data.crop, BATCH, workers=0
    )
    benchmark_images(lambda: next(batches), BATCH)


def test_help(benchmark: BenchmarkFixture) -> None:
    """Seconds until `repro.run --help` has ended."""
    benchmark.pedantic(startup.to_help, rounds=2)
