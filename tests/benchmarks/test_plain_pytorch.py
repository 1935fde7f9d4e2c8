from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from repro.benchmarks import plain_pytorch
from repro.config import Config, Precision
from repro.model import build
from repro.model.lrn import from_config
from tests.data.made import save_image_folder
from tests.tiny import tiny_config

CLASSES = 4
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config() -> Config:
    return tiny_config()


def images(config: Config) -> Tensor:
    return torch.randn(2, 3, config.crop, config.crop)


def test_the_plain_net_is_as_large_as_ours(config: Config) -> None:
    plain, ours = plain_pytorch.paper_network(config.model, config.crop, CLASSES), build(config, CLASSES)
    shapes = [[tuple(parameter.shape) for parameter in network.parameters()] for network in (plain, ours)]
    assert shapes[0] == shapes[1]
    assert plain(images(config)).shape == (2, CLASSES)
    assert sum(isinstance(layer, nn.LocalResponseNorm) for layer in plain) == 2


def test_its_normalisation_is_ours_across_the_columns(config: Config) -> None:
    x = torch.randn(2, 6, 3, 3) * 100
    ours = from_config(config.model.norm, columns=1)
    torch.testing.assert_close(plain_pytorch.response_norm(config.model.norm)(x), ours(x))


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_a_step_is_one_update(config: Config, precision: Precision) -> None:
    layer = nn.Linear(3 * config.crop**2, CLASSES)
    network = nn.Sequential(nn.Flatten(), layer)
    before = layer.weight.detach().clone()
    step = plain_pytorch.training_step(
        network, plain_pytorch.sgd(network, config.optimizer), images(config), torch.tensor([0, 1]), precision
    )
    step()
    gradient = layer.weight.grad
    assert gradient is not None
    expected = before - config.optimizer.lr * (gradient + config.optimizer.weight_decay * before)
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_the_loader_crops_and_normalises_without_end(tmp_path: Path) -> None:
    save_image_folder(tmp_path)
    loader = plain_pytorch.loader(tmp_path / "train", image_size=12, crop=8, batch=10, workers=0)
    for _ in range(3):  # more than the folder has
        batch, labels = next(loader)
        assert (batch.shape, batch.dtype, len(labels)) == ((10, 3, 8, 8), torch.float32, 10)
        assert -3 < batch.min() < batch.max() < 3
    loader.close()  # type: ignore[attr-defined]
