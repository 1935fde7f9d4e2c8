"""The paper's net: sizes, geometry, columns, and every switch of the schema."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repro.config import Config, Conv1Input, LayerSizes, Normalization, Order, Pooling
from repro.errors import UserError
from repro.model import Network, build
from repro.model.summary import layer_table, total

# Section 3.5, with conv1's 55 x 55 x 96 = 290,400 where the caption of Figure 2 prints 253,440 = 55 x 48 x 96.
PAPER_SHAPES = {
    "conv1": [96, 55, 55],
    "pool1": [96, 27, 27],
    "conv2": [256, 27, 27],
    "pool2": [256, 13, 13],
    "conv3": [384, 13, 13],
    "conv4": [384, 13, 13],
    "conv5": [256, 13, 13],
    "pool5": [256, 6, 6],
    "fc6": [4096],
    "fc7": [4096],
    "fc8": [1000],
}


def small(**model: Any) -> Config:
    """An eighth of the width on 64-pixel crops."""
    config = Config()
    config.model = replace(config.model, scale=0.125, **model)
    config.data.crop = 64
    return config


def shapes(config: Config) -> dict[str, list[int]]:
    return {row.name: row.output_shape for row in layer_table(config, 1000)}


def test_every_layer_of_the_paper() -> None:
    found = shapes(Config())
    assert {name: found[name] for name in PAPER_SHAPES} == PAPER_SHAPES


def test_totals_of_the_paper() -> None:
    sums = total(layer_table(Config(), 1000))
    assert sums["parameters"] == 60_965_224
    assert sums["neurons"] == 659_272
    assert sums["macs"] == 724_406_816


def test_the_one_gpu_net_of_section_3_2() -> None:
    config = Config()
    config.model.columns = 1
    config.model.sizes = LayerSizes(conv1=48, conv2=128, conv3=192, conv4=192, conv5=256)
    assert total(layer_table(config, 1000))["parameters"] == 59_798_312  # layers-145-half.cfg


@pytest.mark.parametrize("geometry", list(Conv1Input))
def test_three_readings_of_224_pixels_give_55_positions_and_one_does_not(geometry: Conv1Input) -> None:
    config = Config()
    config.model.conv1_input = geometry
    positions = 54 if geometry is Conv1Input.one_zero_all_sides else 55
    assert config.crop == (227 if geometry is Conv1Input.real_pixels else 224)
    assert shapes(config)["conv1"] == [96, positions, positions]


def test_the_zeros_are_at_right_and_bottom() -> None:
    network = build(small(), 10).eval()
    conv = network.features.conv1
    assert isinstance(conv, nn.Conv2d)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wide = torch.zeros(1, 3, 67, 67)
    wide[:, :, :64, :64] = image
    expected = nn.functional.conv2d(wide, conv.weight, conv.bias, stride=4)
    torch.testing.assert_close(conv(image), expected)


def test_nonoverlapping_pooling_keeps_the_map_sizes() -> None:
    """As in the authors' net 147: 28, 26, 13, 13, 11, 6."""
    config = Config()
    config.model.pool.size, config.model.conv2_padding, config.model.conv5_padding = 2, 1, 0
    found = shapes(config)
    assert [found[name][-1] for name in ("pool1", "conv2", "pool2", "conv4", "conv5", "pool5")] == [
        28,
        26,
        13,
        13,
        11,
        6,
    ]


def test_columns_meet_only_in_linked_layers() -> None:
    """What the second column sees cannot reach the first one's conv2, but reaches all of conv3."""
    network = build(small(), 10).eval()
    depends = _reach(network, "conv2"), _reach(network, "conv3"), _reach(network, "conv5")
    assert depends[0] == (False, True)
    assert depends[1] == (True, True)
    assert depends[2] == (True, True)


def test_without_links_the_columns_meet_only_in_the_classifier() -> None:
    network = build(small(linked_layers=[]), 10).eval()
    assert all(_reach(network, name) == (False, True) for name in ("conv3", "conv5", "fc6", "fc7"))
    assert _reach(network, "fc8") == (True, True)


def _reach(network: Network, layer: str) -> tuple[bool, bool]:
    """Whether the second column of conv1 changes the first and the second half of a layer's output."""
    outputs: list[Tensor] = []
    modules = network.weight_layers()
    conv1 = modules["conv1"]

    def silence_second_column(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * (torch.arange(output.shape[1]) < output.shape[1] // 2)[:, None, None]

    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 100
    for silenced in (False, True):
        hooks = [modules[layer].register_forward_hook(lambda _m, _i, output: outputs.append(output))]
        if silenced:
            hooks.append(conv1.register_forward_hook(silence_second_column))
        network(image)
        for hook in hooks:
            hook.remove()
    halves = (outputs[0] - outputs[1]).abs().unflatten(1, (2, -1)).flatten(2).amax(2)[0] > 0
    return bool(halves[0]), bool(halves[1])


@pytest.mark.parametrize("left_out", ["conv3", "conv4", "conv5", "fc6", "fc7"])
def test_a_layer_can_be_left_out(left_out: str) -> None:
    layers = [name for name in Config().model.layers if name != left_out]
    network = build(small(layers=layers), 10)
    assert list(network.weight_layers()) == layers
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_conv6_follows_the_last_pool() -> None:
    """layers-146-2011.cfg:258-286."""
    config = Config()
    config.model.layers.insert(5, "conv6")
    names = list(shapes(config))
    assert names.index("pool5") < names.index("conv6") < names.index("fc6")
    assert shapes(config)["conv6"] == [256, 6, 6]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.relu_lrn_pool, ["relu1", "norm1", "pool1"]),
        (Order.lrn_pool_relu, ["norm1", "pool1", "relu1"]),
        (Order.lrn_relu_pool, ["norm1", "relu1", "pool1"]),
        (Order.relu_pool_lrn, ["relu1", "pool1", "norm1"]),
    ],
)
def test_order_in_layer_1(order: Order, expected: list[str]) -> None:
    names = list(shapes(small(order1=order)))
    assert names[names.index("conv1") + 1 : names.index("conv2")] == expected


def test_no_norm_leaves_none_not_even_the_sources_third() -> None:
    config = small()
    config.model.norm = replace(config.model.norm, same_map_after_conv2=True)
    assert "same_map_norm2" in shapes(config)
    config.model.norm.kind = Normalization.none
    assert not [name for name in shapes(config) if "norm" in name]


def test_batch_norm_stands_in_the_same_places() -> None:
    config = small()
    config.model.norm = replace(config.model.norm, kind=Normalization.batch_norm)
    features = build(config, 10).features
    assert isinstance(features.norm1, nn.BatchNorm2d)
    assert isinstance(features.norm2, nn.BatchNorm2d)


def test_average_pooling() -> None:
    config = small()
    config.model.pool = replace(config.model.pool, kind=Pooling.average)
    assert isinstance(build(config, 10).features.pool5, nn.AvgPool2d)


def test_channels_last_and_activation_checkpoints_change_nothing() -> None:
    config = small()
    config.model.dropout.rate = 0.0
    network = build(config, 10)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    results = []
    for checkpointed, layout in (
        (False, torch.contiguous_format),
        (True, torch.contiguous_format),
        (False, torch.channels_last),
    ):
        network.checkpoint_activations = checkpointed
        network.zero_grad()
        logits = network(images.contiguous(memory_format=layout))
        logits.square().sum().backward()
        results.append((logits.detach(), [parameter.grad for parameter in network.parameters()]))
    for logits, gradients in results[1:]:
        torch.testing.assert_close(logits, results[0][0])
        torch.testing.assert_close(gradients, results[0][1])


@pytest.mark.parametrize("layers", [["conv2", "conv1", "fc8"], ["conv1", "fc8"], ["conv1", "conv2", "conv9", "fc8"]])
def test_impossible_layers_are_refused(layers: list[str]) -> None:
    with pytest.raises(UserError, match=r"model\.layers"):
        build(small(layers=layers), 10)


def test_a_crop_that_is_too_small_is_refused() -> None:
    config = small()
    config.data.crop = 20
    with pytest.raises(UserError, match=r"data\.crop=20"):
        build(config, 10)


def test_columns_that_cannot_share_the_maps_are_refused() -> None:
    with pytest.raises(UserError, match="5 columns cannot share"):
        build(small(columns=5), 10)
