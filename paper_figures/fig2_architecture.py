"""Figure 2: the network as a drawing, from the model itself: a changed configuration changes the picture."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from paper_figures.drawing import BLUE, GREY, PAGE, RED, Drawn, new_figure
from repro.config import Config
from repro.evidence.claims import load
from repro.experiments.compose import compose
from repro.model import build
from repro.model.summary import DEFAULT_CLASSES, Layer, layer_table
from repro.record import Record

WORDS = ("setup=ilsvrc2012", "recipe=paper")
TALLEST = 0.9  # of a column's height, for the largest maps


def draw(records: Sequence[Record], words: Sequence[str] = WORDS) -> Drawn:
    """Draws a configuration's network; no record is needed."""
    config = compose(words)
    layers = [layer for layer in layer_table(config, config.data.classes or DEFAULT_CLASSES) if layer.neurons]
    caption_of_paper = load()["C3"].values
    numbers = pd.DataFrame([_row(config, layer, caption_of_paper) for layer in layers])
    figure = new_figure(PAGE, 2.6)
    axes = figure.subplots()
    columns = config.model.columns
    for place, layer in enumerate(layers):
        _draw_layer(axes, place + 1, layer, columns, numbers.iloc[place])
        if place and (layer.name in config.model.linked_layers or layer.name == layers[-1].name) and columns > 1:
            for side in (0.5, -0.5):
                end = -side if layer.name != layers[-1].name else side / 3
                axes.plot([place + 0.25, place + 0.75], [side, end], color=GREY, linewidth=0.8)
    axes.add_patch(Rectangle((-0.2, -0.45), 0.4, 0.9, facecolor="white", edgecolor="black", linewidth=0.8))
    axes.text(0, -1.25, f"input\n{config.crop} x {config.crop} x 3", ha="center", va="top", fontsize=5.5)
    axes.set(xlim=(-0.5, len(layers) + 0.6), ylim=(-2.1, 1.3))
    axes.set_axis_off()
    wrong = [f"{row.layer} {row.neurons:,} (the caption: {row.in_caption:,.0f})" for row in _wrong(numbers)]
    caption = (
        f"The network of `{' '.join(words)}`, drawn from the model: the maps of each layer in {columns} columns (the"
        " sizes are of one), its kernels, all its neurons, and crosses where a layer sees both columns. Neurons that"
        f" differ from the caption of the paper's figure 2 are red: {'; '.join(wrong) or 'none'}."
    )
    return Drawn(figure, numbers, caption)


def _row(config: Config, layer: Layer, in_caption: dict[str, float]) -> dict[str, object]:
    module = build_on_meta(config)[layer.name]
    kernel = getattr(module, "kernel_size", None)
    maps, *sides = layer.output_shape
    return {
        "layer": layer.name,
        "maps": maps,
        "height": sides[0] if sides else 1,
        "width": sides[-1] if sides else 1,
        "kernel": f"{kernel[0]}x{kernel[1]}" if isinstance(kernel, tuple) else "",
        "neurons": layer.neurons,
        "in_caption": in_caption.get(layer.name),
        "parameters": layer.parameters,
    }


def build_on_meta(config: Config) -> dict[str, object]:
    """Returns the layers with weights by name, without memory for weights."""
    import torch

    with torch.device("meta"):
        return dict(build(config, config.data.classes or DEFAULT_CLASSES).weight_layers())


def _wrong(numbers: pd.DataFrame) -> list[pd.Series]:
    rows = [row for _, row in numbers.iterrows()]
    return [row for row in rows if pd.notna(row.in_caption) and row.neurons != row.in_caption]


def _draw_layer(axes: Axes, x: int, layer: Layer, columns: int, row: pd.Series) -> None:
    """A box a column: as tall as its maps are wide, as broad as there are maps."""
    tall = TALLEST * (max(row.height / 55, 0.12) if row.height > 1 else 0.75)
    broad = 0.12 + 0.25 * row.maps / 4096 if row.height == 1 else 0.1 + 0.3 * row.maps / 400
    shared = columns if layer.name != "fc8" else 1
    for column in range(shared):
        middle = 0.5 - column * 1.0 if shared > 1 else 0.0
        box = Rectangle((x - broad / 2, middle - tall / 2), broad, tall, facecolor=BLUE, alpha=0.25, linewidth=0)
        axes.add_patch(box)
        axes.add_patch(Rectangle((x - broad / 2, middle - tall / 2), broad, tall, fill=False, linewidth=0.6))
    size = f"{row.height} x {row.width} x {row.maps // shared}" if row.height > 1 else f"{row.maps // shared}"
    wrong = pd.notna(row.in_caption) and row.neurons != row.in_caption
    axes.text(x, -1.25, f"{layer.name} {row.kernel}\n{size}", ha="center", va="top", fontsize=5.5)
    axes.text(x, -1.85, f"{row.neurons:,}", ha="center", fontsize=5.5, color=RED if wrong else "black")
