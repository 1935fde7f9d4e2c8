import pytest
import torch
import torch.nn.functional as F

from repro.config import Config
from repro.model import build
from repro.model.summary import layer_table
from repro.profiling.work import LayerWork, Work, input_work, layer_work, update_work
from repro.train.optimizer import make_optimizer
from tests.tiny import CROP, tiny_config

BATCH, CLASSES = 2, 4


@pytest.fixture
def config() -> Config:
    return tiny_config()


def step(config: Config, times: int = 1) -> LayerWork:
    network = build(config, CLASSES)
    with layer_work(network) as work:
        for _ in range(times):
            F.cross_entropy(network(torch.randn(BATCH, 3, CROP, CROP)), torch.zeros(BATCH).long()).backward()
    return work


def test_operations_of_layers_with_weights_are_those_of_describe(config: Config) -> None:
    work = step(config)
    macs = {row.name: row.macs for row in layer_table(config, CLASSES) if row.macs}
    assert len(macs) == 8
    for layer, count in macs.items():
        assert work[layer, "forward"].flops == 2 * count * BATCH
        gradients = 1 if layer == "conv1" else 2  # of the weights; of the input too, but for the images
        assert work[layer, "backward"].flops == 2 * gradients * count * BATCH


def test_the_least_bytes_are_inputs_weights_and_outputs(config: Config) -> None:
    work = step(config)
    fc8 = 4 * (BATCH * (256 + CLASSES) + CLASSES * 257)  # fc7 has 4096 / 16 units
    assert work["fc8", "forward"] == Work(2 * BATCH * CLASSES * 256, fc8)
    assert work["fc8", "backward"].bytes == fc8 + 4 * (BATCH * 256 + CLASSES * 257)
    norm = BATCH * 6 * 15 * 15  # conv1's 96 / 16 maps of a 64-pixel crop
    assert work["norm1", "forward"] == Work(11 * norm, 2 * 4 * norm)
    assert work["norm1", "backward"] == Work(22 * norm, 3 * 4 * norm)


def test_what_needs_no_gradient_does_nothing_backward(config: Config) -> None:
    network = build(config, CLASSES)
    network.features.requires_grad_(False)
    with layer_work(network) as work:
        network(torch.randn(BATCH, 3, CROP, CROP)).sum().backward()
    assert ("pool5", "forward") in work
    assert ("pool5", "backward") not in work


def test_parts_of_a_batch_add_up(config: Config) -> None:
    assert step(config, times=2)["conv2", "forward"] == step(config)["conv2", "forward"] * 2


def test_what_is_computed_again_is_no_work_of_the_layer(config: Config) -> None:
    plain = step(config)
    config.train.checkpoint_activations = True
    assert step(config) == plain


def test_an_update_reads_and_writes_weights_and_velocity_and_reads_the_gradient(config: Config) -> None:
    network = build(config, CLASSES)
    optimizer = make_optimizer(network, config.optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    optimizer.step()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert update_work(optimizer) == Work(6 * count, 5 * 4 * count)


def test_a_batch_is_read_as_bytes_and_written_as_numbers() -> None:
    assert input_work(torch.zeros(2, 3, 4, 4)) == Work(96, 96 * 5)
