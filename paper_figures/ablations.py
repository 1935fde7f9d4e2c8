"""Which ingredient mattered: the effect of each ablation, with its interval, its seeds and what was published."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_figures.drawing import BLUE, GREY, ORANGE, PAGE, Drawn, Missing, new_figure
from repro.evidence import stats
from repro.evidence.claims import find_arm, published_size
from repro.evidence.comparison import MAIN, Arm, Comparison, comparisons
from repro.evidence.image_copies import remark
from repro.evidence.published import of_ablation
from repro.evidence.selection import has_enough, is_shown
from repro.experiments.folder import BASELINE
from repro.record import Record

WIDEST = 10.0  # percentage points: what is beyond stands at the broken edge of the axis


def draw(records: Sequence[Record]) -> Drawn:
    """Draws the comparison of the most seeds."""
    shown = [part for part in comparisons(records) if is_shown(part)]
    if not shown:
        raise Missing("no comparison has three seeds an arm: python -m repro.run suite=headline_small")
    part = max(shown, key=lambda part: (len(find_arm(part, BASELINE).learned), len(part.arms)))
    arms = [arm for arm in part.arms if arm.name in part.effects and has_enough(arm)]
    arms.sort(key=lambda arm: (bool(arm.learned), part.effects[arm.name].differences[MAIN].mean or 0.0))
    numbers = pd.DataFrame([row for arm in arms for row in _rows(part, arm)])
    figure = new_figure(PAGE, 0.6 + 0.23 * len(arms))
    axes = figure.subplots()
    baseline = stats.mean(find_arm(part, BASELINE).values(MAIN))
    assert baseline.mean is not None
    spread = np.array(list(find_arm(part, BASELINE).values(MAIN).values())) - baseline.mean
    axes.axvspan(spread.min(), spread.max(), color=GREY, alpha=0.25, linewidth=0)
    axes.axvline(0, color="black", linewidth=0.6)
    for height, arm in enumerate(arms):
        _draw_arm(axes, height, part, arm)
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.set(xlim=(-3.5, WIDEST), ylim=(-0.6, len(arms) - 0.4), xlabel="difference in top-1 error, percentage points")
    axes.tick_params(axis="y", length=0)
    methods = ", ".join(sorted({one.method.value for arm in arms if (one := part.effects[arm.name].simultaneous)}))
    place = f"`setup={part.setup} recipe={part.recipe}`, {part.device}, {part.precision}"
    caption = (
        f"Effect of each change on the top-1 error, ten crops of {part.data.val_images:,} validation images of"
        f" {part.data.source}{_remark(part)}, {place}: mean over seeds, with an interval that holds for all arms at"
        f" once with 95 % ({methods}), each seed less the same seed of the baseline as a dot. The grey band holds the"
        " baseline's own seeds, less their mean; hollow diamonds are the"
        f" authors' own effects on ImageNet. Arms beyond {WIDEST:g} points stand at the edge with their number; those"
        " that did not learn have none."
    )
    return Drawn(figure, numbers, caption)


def _remark(part: Comparison) -> str:
    words = remark(part.data.content_hash)
    return f" ({words})" if words else ""


def _rows(part: Comparison, arm: Arm) -> list[dict[str, object]]:
    """The mean with its interval, each seed, and the published effect, a row each."""
    effect = part.effects[arm.name]
    whole: dict[str, object] = {"ablation": arm.name, "what": "mean", "seed": None}
    if (found := effect.simultaneous) is not None:
        whole |= {"points": found.mean, "low": found.low, "high": found.high, "n": found.n}
        whole |= {"method": found.method.value, "detectable": found.detectable}
    rows = [whole | {"verdict": effect.verdict}]
    rows += [
        {"ablation": arm.name, "what": "seed", "seed": seed, "points": points} for seed, points in _by_seed(part, arm)
    ]
    if (published := _published(arm)) is not None:
        rows.append({"ablation": arm.name, "what": "published", "points": published})
    return rows


def _by_seed(part: Comparison, arm: Arm) -> list[tuple[int, float]]:
    own, other = arm.values(MAIN), find_arm(part, BASELINE).values(MAIN)
    return [(seed, own[seed] - other[seed]) for seed in sorted(own.keys() & other.keys())]


def _published(arm: Arm) -> float | None:
    """The authors' own effect on top-1, where they ran it."""
    sizes = [published_size(row.top1_effect) for row in of_ablation(arm.name) if row.n == "1" and "ILSVRC" in row.data]
    return next((size[0] for size in sizes if size is not None), None)


def _draw_arm(axes: Axes, place: int, part: Comparison, arm: Arm) -> None:
    effect = part.effects[arm.name]
    difference = effect.simultaneous
    if difference is None:
        axes.text(WIDEST + 0.15, place, effect.verdict, va="center", fontsize=6)
        return
    words = f"n={difference.n}, {effect.outcome or effect.verdict}".replace("same", "not distinguishable")
    axes.text(WIDEST + 0.15, place, words, va="center", fontsize=6)
    if difference.mean > WIDEST:
        interval = f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"
        axes.text(WIDEST - 0.25, place, f"{interval}  //", va="center", ha="right", fontsize=6, color=BLUE)
        return
    seeds = [points for _, points in _by_seed(part, arm)]
    axes.scatter(seeds, [place - 0.22] * len(seeds), s=4, color=GREY, linewidths=0)
    axes.hlines(place, difference.low, difference.high, color=BLUE, linewidth=1.2)
    axes.scatter([difference.mean], [place], s=14, color=BLUE, zorder=3)
    if (published := _published(arm)) is not None:
        axes.scatter(
            [published], [place], s=22, marker="D", facecolors="none", edgecolors=ORANGE, linewidths=1, zorder=4
        )
