"""The network of section 3.5, every ingredient a switch of `ModelConfig`.

Shapes are those of the paper's net: 224-pixel crops, two columns of 48-128-192-192-128 maps and 2048-2048
units, 1,000 classes; 60,965,224 parameters.
"""

from collections import OrderedDict

from torch import nn

from repro.config import Conv1Input, DropoutPlace, ModelConfig
from repro.errors import UserError
from repro.model.fast.conv1 import Conv1
from repro.model.network import ColumnConv, ColumnLinear, Network, output_shape
from repro.model.parts import activation, dropout, follow, pool, size

Stages = list[tuple[str, nn.Module]]

_ORDER = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc6", "fc7", "fc8"]
_NEEDED = {"conv1", "conv2", "fc8"}
_CONV1_PADDING = {Conv1Input.zero_all_sides: 2, Conv1Input.one_zero_all_sides: 1}


def build_alexnet(config: ModelConfig, classes: int, crop: int) -> Network:
    """The two-column net for (N, 3, crop, crop) images. Raises UserError where its sizes do not fit."""
    _check_layers(config.layers)
    features = nn.Sequential(OrderedDict(_features(config)))
    maps, height, width = output_shape(features, crop)
    classifier = nn.Sequential(OrderedDict(_classifier(config, maps * height * width, classes)))
    return Network(features, classifier)


def _check_layers(layers: list[str]) -> None:
    if layers != [name for name in _ORDER if name in layers] or not set(layers) >= _NEEDED:
        raise UserError(
            f"model.layers={layers}: give names out of {', '.join(_ORDER)} in this order;"
            " conv1, conv2 and fc8 cannot be left out"
        )


def _features(config: ModelConfig) -> Stages:
    """Sections 3.2 to 3.5, convolutional part."""
    conv1_maps, conv2_maps = size(config, "conv1"), size(config, "conv2")
    stages = _conv1(config, conv1_maps)  # (N, 96, 55, 55)
    stages += follow(config, config.order1, 1, conv1_maps)  # pooled: (N, 96, 27, 27)
    stages += _conv(config, "conv2", conv1_maps, kernel=5, padding=config.conv2_padding)  # (N, 256, 27, 27)
    stages += follow(config, config.order2, 2, conv2_maps)  # pooled: (N, 256, 13, 13)
    maps = conv2_maps
    # conv3 (N, 384, 13, 13) sees both columns, conv4 (N, 384, 13, 13) and conv5 (N, 256, 13, 13) their own
    for name, padding in (("conv3", 1), ("conv4", 1), ("conv5", config.conv5_padding)):
        if name in config.layers:
            stages += _conv(config, name, maps, kernel=3, padding=padding)
            stages.append((f"{config.activation.value}{name[-1]}", activation(config)))
            maps = size(config, name)
    stages.append(("pool5", pool(config.pool)))  # (N, 256, 6, 6)
    if "conv6" in config.layers:  # the sixth layer of Table 2's "1 CNN*", layers-146-2011.cfg:258-286
        stages += _conv(config, "conv6", maps, kernel=3, padding=1)
        stages.append((f"{config.activation.value}_conv6", activation(config)))
    return stages


def _conv1(config: ModelConfig, maps: int) -> Stages:
    """11x11 kernels with stride 4. A 224-pixel crop gives 54.25 places: three zeros at right and bottom make 55,
    as the authors' code reads them (`layer.py:1004`; filter_acts.cu counts pixels outside as zero)."""
    padding = _CONV1_PADDING.get(config.conv1_input, 0)
    more = 3 if config.conv1_input is Conv1Input.zero_right_bottom else 0
    return [("conv1", Conv1(3, maps, kernel=11, stride=4, padding=padding, more=more))]


def _links(config: ModelConfig, name: str) -> int:
    """Groups of a layer: one where it sees every column, else one a column."""
    return 1 if name in config.linked_layers else config.columns


def _conv(config: ModelConfig, name: str, maps_in: int, kernel: int, padding: int) -> Stages:
    maps, columns = size(config, name), _links(config, name)
    if columns == 1:
        return [(name, nn.Conv2d(maps_in, maps, kernel, padding=padding))]
    return [(name, ColumnConv(maps_in, maps, kernel, padding, columns))]


def _classifier(config: ModelConfig, inputs: int, classes: int) -> Stages:
    """Fully connected part: dropout on the outputs of fc6 and fc7, (N, 4096), section 4.2, or on their inputs."""
    stages: Stages = []
    for name in ("fc6", "fc7"):
        if name in config.layers:
            units, groups = size(config, name), _links(config, name)
            linear = nn.Linear(inputs, units) if groups == 1 else ColumnLinear(inputs, units, groups)
            number = name[-1]
            layer: Stages = [(name, linear), (f"{config.activation.value}{number}", activation(config))]
            if config.dropout.rate:
                before = config.dropout.place is DropoutPlace.before_hidden
                drop = (f"dropout{number}", dropout(config.dropout, inputs if before else units))
                layer.insert(0 if before else len(layer), drop)
            stages += layer
            inputs = units
    return [*stages, ("fc8", nn.Linear(inputs, classes))]
