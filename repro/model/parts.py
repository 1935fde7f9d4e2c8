"""From a configuration to the layers that follow a convolution: activation, normalisation, pooling, dropout."""

from torch import nn

from repro.config import Activation, DropoutConfig, DropoutKind, ModelConfig, Normalization, Order, PoolConfig, Pooling
from repro.errors import UserError
from repro.model import lrn
from repro.model.fast.pool import MaxPool
from repro.model.network import Dropout, ReLU

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.sigmoid: nn.Sigmoid,
    Activation.tanh: nn.Tanh,
    Activation.leaky_relu: nn.LeakyReLU,
    Activation.elu: nn.ELU,
}


def activation(config: ModelConfig) -> nn.Module:
    """The output function of a hidden layer, section 3.1."""
    if config.activation is Activation.relu:
        return ReLU()
    return _ACTIVATIONS[config.activation]()


def pool(config: PoolConfig) -> nn.Module:
    """A pooling layer, section 3.4. A window that juts out counts its valid pixels, as in the authors' code."""
    if config.kind is Pooling.max:
        return MaxPool(config.size, config.stride, config.round_up)
    return nn.AvgPool2d(config.size, config.stride, ceil_mode=config.round_up, count_include_pad=False)


def dropout(config: DropoutConfig, units: int) -> nn.Module:
    """Dropout of (N, units), section 4.2."""
    return Dropout(config.rate, units, inverted=config.kind is DropoutKind.inverted)


def normalization(config: ModelConfig, maps: int) -> list[nn.Module]:
    """What stands in a place of response normalisation: one layer, or none."""
    if config.norm.kind is Normalization.lrn:
        return [lrn.from_config(config.norm, config.columns)]
    return [nn.BatchNorm2d(maps)] if config.norm.kind is Normalization.batch_norm else []


def follow(config: ModelConfig, order: Order, number: int, maps: int) -> list[tuple[str, nn.Module]]:
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
