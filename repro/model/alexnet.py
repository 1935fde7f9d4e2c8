"""The network of section 3.5, every ingredient a switch of `ModelConfig`.

Shapes are those of the paper's net: 224-pixel crops, two columns of 48-128-192-192-128 maps and 2048-2048
units, 1,000 classes; 60,965,224 parameters.
"""

from collections import OrderedDict

from torch import nn

from repro.config import (
    Activation,
    Conv1Input,
    DropoutConfig,
    DropoutKind,
    DropoutPlace,
    ModelConfig,
    Normalization,
    Order,
    PoolConfig,
    Pooling,
)
from repro.errors import UserError
from repro.model import lrn
from repro.model.layers import ColumnLinear, Conv1, Dropout
from repro.model.network import Network, output_shape

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
    stages += after_convolution(config, config.order1, 1, conv1_maps)  # pooled: (N, 96, 27, 27)
    stages += _conv(config, "conv2", conv1_maps, kernel=5, padding=config.conv2_padding)  # (N, 256, 27, 27)
    stages += after_convolution(config, config.order2, 2, conv2_maps)  # pooled: (N, 256, 13, 13)
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
    right_bottom = 3 if config.conv1_input is Conv1Input.zero_right_bottom else 0
    return [("conv1", Conv1(3, maps, kernel=11, stride=4, padding=padding, right_bottom=right_bottom))]


def _links(config: ModelConfig, name: str) -> int:
    """Groups of a layer: one where it sees every column, else one a column."""
    return 1 if name in config.linked_layers else config.columns


def _conv(config: ModelConfig, name: str, maps_in: int, kernel: int, padding: int) -> Stages:
    return [(name, nn.Conv2d(maps_in, size(config, name), kernel, padding=padding, groups=_links(config, name)))]


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


# ---- what follows a convolution, and how large it is -----------------------------------------------------------------

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.sigmoid: nn.Sigmoid,
    Activation.tanh: nn.Tanh,
    Activation.leaky_relu: nn.LeakyReLU,
    Activation.elu: nn.ELU,
}


def activation(config: ModelConfig) -> nn.Module:
    """The output function of a hidden layer, section 3.1."""
    if config.activation is Activation.relu:
        return nn.ReLU(inplace=True)  # no layer needs what it was given
    return _ACTIVATIONS[config.activation]()


def pool(config: PoolConfig) -> nn.Module:
    """A pooling layer, section 3.4. A window that juts out counts its valid pixels, as in the authors' code."""
    if config.kind is Pooling.max:
        return nn.MaxPool2d(config.size, config.stride, ceil_mode=config.round_up)
    return nn.AvgPool2d(config.size, config.stride, ceil_mode=config.round_up, count_include_pad=False)


def dropout(config: DropoutConfig, units: int) -> nn.Module:
    """Dropout of (N, units), section 4.2."""
    return Dropout(config.rate, units, inverted=config.kind is DropoutKind.inverted)


def normalization(config: ModelConfig, maps: int) -> list[nn.Module]:
    """Makes what stands in a place of response normalisation: one layer, or none."""
    if config.norm.kind is Normalization.lrn:
        return [lrn.from_config(config.norm, config.columns)]
    return [nn.BatchNorm2d(maps)] if config.norm.kind is Normalization.batch_norm else []


def after_convolution(config: ModelConfig, order: Order, number: int, maps: int) -> list[tuple[str, nn.Module]]:
    """The named layers after a convolution that is normalised and pooled, in the order given."""
    stages: list[tuple[str, nn.Module]] = []
    for step in order.value.split("_"):
        if step == "relu":
            stages.append((f"{config.activation.value}{number}", activation(config)))
        elif step == "lrn":
            stages += [(f"norm{number}", layer) for layer in normalization(config, maps)]
            if number == 2 and config.norm.same_map_after_conv2 and config.norm.kind is Normalization.lrn:
                stages.append(("same_map_norm2", lrn.same_map_after_conv2()))
        else:
            stages.append((f"pool{number}", pool(config.pool)))
    return stages


def size(config: ModelConfig, layer: str) -> int:
    """Maps or units of a layer at the configured scale. UserError where the columns cannot share them."""
    full = getattr(config.sizes, layer)
    scaled = round(full * config.scale * config.width)
    if scaled < 1 or scaled % config.columns:
        raise UserError(
            f"model.sizes.{layer}={full} x scale {config.scale:g} x width {config.width:g} makes {scaled},"
            f" which {config.columns} columns cannot share"
        )
    return scaled
