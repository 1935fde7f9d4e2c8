"""The roofline: how near each layer and kernel comes to its device's ceilings (Williams, Waterman, Patterson, 2009).

Work of F operations and B bytes takes at least max(F / rate of a matrix product, B / bandwidth of a copy). The larger
of the two says what binds it, compute or memory, and the least time over the measured one is its share of the ceiling.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.files import replace_file
from repro.profiling.ranges import BACKWARD, FORWARD, UPDATE
from repro.profiling.work import Work

if TYPE_CHECKING:
    import pandas as pd

LABELLED = 1.0  # % of the step: smaller points get no name
LINE = 11  # points from one name to the next


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device: FLOP/s of a matrix product in the precision used, bytes/s of a copy."""

    flops: float
    bandwidth: float

    def least_seconds(self, work: Work) -> float:
        """No faster than this."""
        return max(work.flops / self.flops, work.bytes / self.bandwidth)

    def bound(self, work: Work) -> str:
        """`compute` or `memory`; empty where there is no work to speak of."""
        if not work.flops and not work.bytes:
            return ""
        return "compute" if work.flops / self.flops > work.bytes / self.bandwidth else "memory"


def draw(layers: "pd.DataFrame", ceilings: Ceilings, title: str, path: Path) -> None:
    """Writes the picture: operations a byte against operations a second, for each layer, forward and backward.

    `layers` has the columns of the layer table.
    """
    import io

    import seaborn as sns
    from matplotlib.figure import Figure

    with sns.axes_style("whitegrid"), sns.plotting_context("notebook", font_scale=0.9):
        figure = Figure(figsize=(13, 6.5), layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
    table = layers[(layers["gflop"] > 0) & (layers["milliseconds"] > 0)]
    points = table.assign(intensity=1000 * table["gflop"] / table["megabytes"], rate=table["gflop_per_second"] * 1e9)
    for axis, phases in zip(axes, ([FORWARD], [BACKWARD, UPDATE]), strict=True):
        _panel(axis, points[points["phase"].isin(phases)], " and ".join(phases))
    lowest = min(points["intensity"].min() / 2, 0.1)
    highest = max(points["intensity"].max() * 6, 4 * ceilings.flops / ceilings.bandwidth)
    for axis in axes:
        _ceilings(axis, ceilings, lowest, highest)
    figure.suptitle(
        f"{title}\nblue: bound by memory, orange: by compute; area: share of the step, named from {LABELLED:g} % on"
    )
    figure.draw_without_rendering()  # places on the page are known from here on
    for axis, phases in zip(axes, ([FORWARD], [BACKWARD, UPDATE]), strict=True):
        _names(axis, points[points["phase"].isin(phases) & (points["share_percent"] >= LABELLED)])
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    replace_file(path, image.getvalue())


def _panel(axis: Any, points: "pd.DataFrame", title: str) -> None:
    import seaborn as sns

    sns.scatterplot(
        points, x="intensity", y="rate", size="share_percent", hue="bound", hue_order=["memory", "compute"],
        sizes=(15, 350), size_norm=(0, 30), alpha=0.7, palette="colorblind", legend=False, ax=axis,
    )  # fmt: skip
    axis.set(xscale="log", yscale="log", title=title, xlabel="FLOP a byte", ylabel="FLOP/s")


def _ceilings(axis: Any, ceilings: Ceilings, lowest: float, highest: float) -> None:
    ridge = ceilings.flops / ceilings.bandwidth
    axis.plot([lowest, ridge], [lowest * ceilings.bandwidth, ceilings.flops], color="0.3")
    axis.plot([ridge, highest], [ceilings.flops] * 2, color="0.3")
    axis.set_xlim(lowest, highest)
    axis.set_ylim(top=4 * ceilings.flops)
    compute = f"matrix product, {ceilings.flops / 1e12:.3g} TFLOP/s"
    axis.annotate(compute, (highest, ceilings.flops), (-4, 5), textcoords="offset points", ha="right", color="0.3")
    memory = f"copy, {ceilings.bandwidth / 1e9:.3g} GB/s"
    middle = (lowest * ridge**2) ** (1 / 3)
    axis.annotate(
        memory, (middle, middle * ceilings.bandwidth), (-6, 6), textcoords="offset points", color="0.3",
        ha="right", rotation=0,
    )  # fmt: skip


def _names(axis: Any, points: "pd.DataFrame") -> None:
    """Names to the right of their points, moved down where one would lie on another."""
    pixels = axis.figure.dpi / 72
    taken: list[tuple[float, float]] = []
    for point in points.sort_values("rate", ascending=False).itertuples():
        x, y = axis.transData.transform((point.intensity, point.rate)) / pixels
        place = y
        for other_x, other_y in taken:  # from top to bottom
            if abs(other_x - x) < 60 and other_y - place < LINE:
                place = other_y - LINE
        taken.append((x, place))
        axis.annotate(
            point.layer, (point.intensity, point.rate), (14, place - y), textcoords="offset points", va="center",
            fontsize=9, arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
