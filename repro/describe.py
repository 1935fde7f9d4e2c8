"""`python -m repro.describe recipe=paper format=json`: the layer table of a network, without data.

Shapes are of one image, (C, H, W) or (units,). Multiply-adds (MACs) count convolutions and products, one image;
neurons are the outputs of layers with weights, as in the caption of the paper's Figure 2.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from repro.command import exit_code, own_words
from repro.config import Config
from repro.errors import UserError
from repro.text import console_for_tables

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT_CLASSES = 1000
FORMATS = ("table", "json")
WIDTH = 80  # columns of the table where it is not for a terminal


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
    import torch

    from repro.model import build

    with torch.device("meta"):
        network = build(config, classes).eval()
        rows: list[Layer] = []
        for name, module in [*network.features.named_children(), *network.classifier.named_children()]:
            module.register_forward_hook(_row_of(name, rows))
        network(torch.empty(1, 3, config.crop, config.crop))
    return rows


def _row_of(name: str, rows: list[Layer]) -> "Any":
    def hook(module: "nn.Module", inputs: "tuple[Tensor, ...]", output: "Tensor") -> None:
        from repro.model.network import WEIGHT_LAYERS, fan_in

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


def _print_table(rows: list[Layer], title: str) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("layer", "output", "parameters", "MACs", "neurons"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for row in rows:
        shape = " x ".join(map(str, row.output_shape))
        table.add_row(
            row.name, shape, *(f"{value:,}" if value else "" for value in (row.parameters, row.macs, row.neurons))
        )
    table.add_section()
    table.add_row("total", "", *(f"{value:,}" for value in total(rows).values()))
    console_for_tables(WIDTH).print(table)


def main() -> None:
    """Reads `key=value` arguments: those of `repro.run`, and `format=table|json`. The setup is `ilsvrc2012`."""
    from repro.experiments.compose import compose

    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    own, arguments = own_words(sys.argv[1:], {"format": "table"})
    if own["format"] not in FORMATS:
        raise UserError(f"format={own['format']}: choose one of {', '.join(FORMATS)}")
    if not any(argument.startswith("setup=") for argument in arguments):
        arguments.insert(0, "setup=ilsvrc2012")
    config = compose(arguments)
    classes = config.data.classes or DEFAULT_CLASSES
    rows = layer_table(config, classes)
    if own["format"] == "json":
        print(json.dumps({"layers": [asdict(row) for row in rows], "total": total(rows)}, indent=2))
    else:
        _print_table(rows, f"{config.setup}, recipe {config.recipe}: {classes} classes, {config.crop}-pixel input")


if __name__ == "__main__":
    sys.exit(exit_code(main))
