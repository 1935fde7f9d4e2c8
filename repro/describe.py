"""`python -m repro.describe recipe=paper format=json`: the layer table of a network, without data.

Shapes are of one image, (C, H, W) or (units,). Multiply-adds (MACs) count convolutions and products, one image;
neurons are the outputs of layers with weights, as in the caption of the paper's Figure 2.
"""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from repro.command import exit_code, helped, own_words
from repro.errors import UserError
from repro.text import console_for_tables

if TYPE_CHECKING:
    from repro.model.summary import Layer

FORMATS = ("table", "json")
WIDTH = 80  # columns of the table where it is not for a terminal


def _print_table(rows: "list[Layer]", title: str) -> None:
    from rich import box
    from rich.table import Table

    from repro.model.summary import total

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
    if helped(sys.argv[1:], __doc__):
        return
    own, arguments = own_words(sys.argv[1:], {"format": "table"})
    if own["format"] not in FORMATS:
        raise UserError(f"format={own['format']}: choose one of {', '.join(FORMATS)}")
    if not any(argument.startswith("setup=") for argument in arguments):
        arguments.insert(0, "setup=ilsvrc2012")
    from repro.experiments.compose import compose
    from repro.model.summary import DEFAULT_CLASSES, layer_table, total

    config = compose(arguments)
    classes = config.data.classes or DEFAULT_CLASSES
    rows = layer_table(config, classes)
    if own["format"] == "json":
        print(json.dumps({"layers": [asdict(row) for row in rows], "total": total(rows)}, indent=2))
    else:
        _print_table(rows, f"{config.setup}, recipe {config.recipe}: {classes} classes, {config.crop}-pixel input")


if __name__ == "__main__":
    sys.exit(exit_code(main))
