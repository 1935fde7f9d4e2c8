"""Figure 3: the kernels of conv1, drawn as the authors drew them; and what claim C22 says of their colour, measured.

As in the authors' `shownet.py`: sixteen kernels a row, the first column's above the second's, one least and one largest
number over all kernels for the scale, each pixel enlarged without smoothing.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paper_figures.drawing import BLUE, COLUMN, ORANGE, Drawn, Missing, new_figure
from repro.evidence.claimed_kernels import SHUFFLES, chroma, first_column, permutation_p
from repro.record import COMPLETE, Record

PLACE = ("imagenette", "paper", "baseline")
"""Setup, recipe and ablation: the paper's net at full width."""
A_ROW = 16
GAP = 1  # pixels between kernels


def draw(records: Sequence[Record]) -> Drawn:
    """Draws the kernels of the first seed, and the colour of both columns' kernels over all seeds."""
    runs = [run for run in records if (run.setup, run.recipe, run.ablation) == PLACE and run.status == COMPLETE]
    found = {run.seed: kernels for run in runs if (kernels := run.kernels()) is not None}
    if not found:
        raise Missing("no record holds the kernels of figure 3: python -m repro.run setup=imagenette ablation=baseline")
    first, device = min(found), runs[0].machine.device
    figure = new_figure(COLUMN, 2.5)
    top, bottom = figure.subplots(2, 1, height_ratios=[1.5, 1])
    top.imshow(sheet(found[first].astype(float)), interpolation="nearest")
    top.set_axis_off()
    numbers = pd.concat([_measured(seed, kernels.astype(float)) for seed, kernels in sorted(found.items())])
    for place, (_, rows) in enumerate(numbers.groupby("seed")):
        for column, colour in ((1, BLUE), (2, ORANGE)):
            values = rows.loc[rows["column"] == column, "chroma"]
            spread = np.random.default_rng(place).uniform(-0.12, 0.12, len(values))
            x = place + (column - 1.5) * 0.4
            bottom.scatter(x + spread, values, s=3, color=colour, alpha=0.6, linewidths=0)
            bottom.hlines(values.mean(), x - 0.16, x + 0.16, color="black", linewidth=0.8)
        p = rows["p"].iloc[0]
        bottom.text(place, 1.04, f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}", ha="center", fontsize=6)
    bottom.set_xticks(range(len(found)), [f"seed {seed}" for seed in sorted(found)])
    bottom.set(ylim=(0, 1.15), yticks=[0, 0.5, 1], ylabel="chroma")
    caption = (
        f"conv1's kernels at the end of `setup=imagenette recipe=paper seed={first}` ({device}), the first column's"
        " above the second's, as the authors drew theirs. Below, for each kernel the share of its energy that is colour"
        " (0: grey), the first column blue, the second orange, bars at the means; p is of a permutation test on the"
        f" difference of the means (two-sided, {SHUFFLES:,} shuffles of the kernels over the columns);"
        f" n={len(found)} seeds."
    )
    return Drawn(figure, numbers, caption)


def sheet(kernels: np.ndarray) -> np.ndarray:
    """Lays kernels (maps, 3, H, W) out as an image (rows, columns, 3) between 0 and 1, on white."""
    maps, _, height, width = kernels.shape
    scaled = (kernels - kernels.min()) / (kernels.max() - kernels.min())
    rows = -(-maps // A_ROW)
    image = np.ones((rows * (height + GAP) - GAP, A_ROW * (width + GAP) - GAP, 3))
    for number, kernel in enumerate(scaled):
        top, left = number // A_ROW * (height + GAP), number % A_ROW * (width + GAP)
        image[top : top + height, left : left + width] = kernel.transpose(1, 2, 0)
    return image


def _measured(seed: int, kernels: np.ndarray) -> pd.DataFrame:
    values, maps = chroma(kernels), len(kernels)
    first = first_column(maps)
    return pd.DataFrame(
        {
            "seed": seed,
            "kernel": np.arange(maps),
            "column": np.where(first, 1, 2),
            "chroma": values,
            "p": permutation_p(values, first),
        }
    )
