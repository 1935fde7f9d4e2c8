"""The layers of a network with their sizes: shapes, parameters, multiply-adds and neurons, from no data.

Shapes are of one image, (C, H, W) or (units,). Multiply-adds (MACs) count convolutions and products, one image;
neurons are the outputs of layers with weights, as in the caption of the paper's figure 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.config import Config
from repro.model import build
from repro.model.network import WEIGHT_LAYERS, fan_in

DEFAULT_CLASSES = 1000
"""ImageNet's, where a configuration does not say how many there are."""


@dataclass(frozen=True)
class Layer:
    """One row of the table."""

    name: str
    kind: str
    output_shape: list[int]
    parameters: int
    macs: int
    neurons: int


def layer_table(config: Config, classes: int) -> list[Layer]:
    """Every layer in order, from a pass of shapes alone; no memory for weights is taken."""
    with torch.device("meta"):
        network = build(config, classes).eval()
        rows: list[Layer] = []
        for name, module in [*network.features.named_children(), *network.classifier.named_children()]:
            module.register_forward_hook(_row_of(name, rows))
        network(torch.empty(1, 3, config.crop, config.crop))
    return rows


def _row_of(name: str, rows: list[Layer]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shape = list(output.shape[1:])
        weighted = name.startswith(WEIGHT_LAYERS)
        outputs = math.prod(shape)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        kind = name.rstrip("0123456789").removesuffix("_conv")
        macs = outputs * fan_in(module) if weighted else 0
        rows.append(Layer(name, kind, shape, parameters, macs, outputs if weighted else 0))

    return hook


def total(rows: list[Layer]) -> dict[str, int]:
    """Sums over the table."""
    return {key: sum(getattr(row, key) for row in rows) for key in ("parameters", "macs", "neurons")}
