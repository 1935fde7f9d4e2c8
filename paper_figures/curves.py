"""How the error falls: validation error of the arms that say most, by epoch and, from quiet machines, by minute."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_figures.drawing import BLUE, GREEN, GREY, ORANGE, PAGE, RED, Drawn, Missing, new_figure
from repro.evidence import quiet
from repro.evidence.claims import find_arm
from repro.evidence.comparison import Arm, Comparison, comparisons
from repro.evidence.image_copies import remark
from repro.evidence.selection import is_shown
from repro.experiments.folder import BASELINE
from repro.record import Record

ARMS = (BASELINE, "no_lrn", "nonoverlapping_pool", "no_dropout", "one_gpu_half", "tanh")
"""The ingredients that the paper names first."""
LOOKS = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (RED, ":"), (GREY, "-"), ("black", "--"))
"""Colour and line of each arm: told apart in grey too."""


def draw(records: Sequence[Record], names: Sequence[str] = ARMS) -> Drawn:
    """Draws these arms of the comparison of the most seeds."""
    shown = [part for part in comparisons(records) if is_shown(part)]
    if not shown:
        raise Missing("no comparison has three seeds an arm: python -m repro.run suite=headline_small")
    part = max(shown, key=lambda part: (len(find_arm(part, BASELINE).learned), len(part.arms)))
    arms = [arm for name in names if (arm := find_arm(part, name)).learned]
    numbers = pd.DataFrame([row for arm in arms for row in _rows(arm)])
    timed = bool(numbers["minutes"].notna().any())
    figure = new_figure(PAGE if timed else PAGE / 1.6, 2.4)
    panels = np.atleast_1d(figure.subplots(1, 1 + timed, sharey=True))
    for axes, along in zip(panels, ("epoch", "minutes"), strict=False):
        for arm, (colour, line) in zip(arms, cycle(LOOKS), strict=False):
            _draw(axes, numbers[numbers["ablation"] == arm.name], along, colour, line)
        axes.set(xlabel={"epoch": "epochs", "minutes": "minutes of training"}[along], xlim=(0, None))
    panels[0].set(ylabel="top-1 validation error, %", ylim=(0, None))
    panels[0].legend(frameon=False, ncols=2)
    return Drawn(figure, numbers, _caption(part, arms, timed))


def _rows(arm: Arm) -> list[dict[str, object]]:
    """A row an epoch: mean, least and largest error over the seeds that learned, and their mean minutes if known."""
    curves = [run.curve() for run in arm.learned.values()]
    clocks = [run.curve() for run in arm.learned.values() if quiet.is_quiet(run)]
    rows: list[dict[str, object]] = []
    for epoch in range(min(map(len, curves))):
        errors = [curve[epoch]["val_top1"] for curve in curves]
        rows.append(
            {
                "ablation": arm.name,
                "epoch": epoch + 1,
                "mean": float(np.mean(errors)),
                "least": min(errors),
                "largest": max(errors),
                "n": len(errors),
                "minutes": quiet.mean(curve[epoch]["minutes"] for curve in clocks),
            }
        )
    return rows


def _draw(axes: Axes, rows: pd.DataFrame, along: str, colour: str, line: str) -> None:
    name = rows["ablation"].iloc[0]
    axes.fill_between(rows[along], rows["least"], rows["largest"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(rows[along], rows["mean"], color=colour, linestyle=line, linewidth=1, label=name)


def _caption(part: Comparison, arms: Sequence[Arm], timed: bool) -> str:
    words = remark(part.data.content_hash)
    seeds = ", ".join(f"{arm.name} {len(arm.learned)}" for arm in arms)
    minutes = "" if timed else " None of them ran on a machine known to be quiet, so minutes are not measured."
    return (
        f"Top-1 error on the centre crops of {part.data.val_images:,} validation images of {part.data.source}"
        f"{f' ({words})' if words else ''} after each epoch, `setup={part.setup} recipe={part.recipe}`, {part.device},"
        f" {part.precision}: mean over the seeds that learned (n: {seeds}), and all of them within the band.{minutes}"
    )
