"""Figure 1: training error of the four-layer CIFAR-10 net by epoch, with ReLU and others, each at its best rate.

The paper names neither the net nor the rates nor how many epochs it drew; `experiments/suite/fig1.yaml` says what ours
are.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from paper_figures.drawing import BLUE, COLUMN, GREEN, ORANGE, Drawn, Missing, new_figure
from repro.evidence import stats
from repro.evidence.claimed_rates import SUITE, as_factor, epochs, factor_in_doublings
from repro.evidence.claims import load
from repro.evidence.rate_search import TunedArm, tuned_arms
from repro.experiments import suites
from repro.experiments.folder import BASELINE
from repro.record import Record

LOOKS = {BASELINE: ("ReLU", BLUE, "-"), "tanh": ("tanh", ORANGE, "--"), "sigmoid": ("logistic", GREEN, ":")}
"""Name, colour and line of each neuron; the paper has ReLU solid and tanh dashed."""
COMMAND = f"python -m repro.run suite={SUITE}"


def draw(records: Sequence[Record]) -> Drawn:
    """Draws every seed of every neuron, in the arithmetic with the most runs."""
    suite, level = suites.read(SUITE), load()["C11"].values["training_error"]
    arms = [arm for arm in tuned_arms(suite, records) if arm.runs]
    by_kind = {arm.arithmetic: [other for other in arms if other.arithmetic == arm.arithmetic] for arm in arms}
    whole = [same for same in by_kind.values() if {BASELINE, "tanh"} <= {arm.ablation for arm in same}]
    if not whole:
        raise Missing(f"there are no runs of ReLU and tanh at their best rates: {COMMAND}")
    arms = max(whole, key=lambda same: sum(len(arm.runs) for arm in same))
    figure = new_figure(COLUMN, 2.2)
    axes = figure.subplots()
    for arm in arms:
        _draw(axes, arm)
    axes.axhline(level, color="black", linewidth=0.5, linestyle=(0, (1, 2)))
    axes.set(xlabel="epochs", ylabel="training error, %", ylim=(0, 90), xlim=(0, None))
    axes.legend(frameon=False, loc="upper right")
    numbers = pd.DataFrame([row for arm in arms for row in _rows(arm)])
    return Drawn(figure, numbers, _caption(arms, level))


def _draw(axes: Axes, arm: TunedArm) -> None:
    name, colour, line = LOOKS[arm.ablation]
    for number, (_, run) in enumerate(sorted(arm.runs.items())):
        curve = run.curve()
        label = f"{name}, rate {arm.best:g}" if number == 0 else None
        points = [row["train_top1"] for row in curve]
        axes.plot(range(1, len(points) + 1), points, color=colour, linestyle=line, linewidth=0.8, label=label)


def _rows(arm: TunedArm) -> list[dict[str, object]]:
    """Each epoch of each seed; what the search found stands in the rows of epoch 0."""
    same: dict[str, object] = {"neuron": LOOKS[arm.ablation][0], "rate": arm.best}
    rows = [
        same | {"what": "search", "rate": value, "seed": run.seed, "epochs_to_level": run.epochs_to_train_error}
        for value, run in sorted(arm.search.items())
    ]
    for seed, run in sorted(arm.runs.items()):
        rows.append(same | {"what": "seed", "seed": seed, "epochs_to_level": run.epochs_to_train_error})
        rows += [
            same | {"what": "curve", "seed": seed, "epoch": row["epoch"], "training_error": row["train_top1"]}
            for row in run.curve()
        ]
    return rows


def _caption(arms: Sequence[TunedArm], level: float) -> str:
    relu = next(arm for arm in arms if arm.ablation == BASELINE)
    first = next(iter(relu.runs.values()))
    told = [_told(relu, arm) for arm in arms]
    devices = " and ".join(sorted({device for arm in arms for device in arm.devices}))
    rates = ", ".join(f"{value:g}" for value in relu.grid)
    return (
        f"Training error over each epoch of `suite={SUITE}`: {first.data.train_images:,} images of"
        f" {first.data.source}, whole, by the authors' 19 % net (`layers-19pct.cfg`; the paper does not name its net),"
        f" without regularisation, batches of {first.config['train']['batch_size']}, constant rates, each neuron at the"
        f" one of {rates} that was fastest at seed {relu.search[relu.grid[0]].seed}; every seed is drawn, on"
        f" {devices}, {first.precision}. A run ends where its error over an epoch is {level:g} % (dotted), or after"
        f" {first.config['train']['epochs']} epochs. {'; '.join(told)}. The paper: six times, one run each."
    )


def _told(relu: TunedArm, arm: TunedArm) -> str:
    """Epochs to the level, and how many times those of ReLU."""
    name, _, _ = LOOKS[arm.ablation]
    mean = stats.mean(epochs(arm))
    never = sum(run.epochs_to_train_error is None for run in arm.runs.values())
    text = f"{name}: {mean.mean:.2f} epochs{_interval(mean)}, n={mean.n}"
    if never:
        text += f", {never} of them not there yet"
    if arm is relu:
        return text
    factor = as_factor(factor_in_doublings(relu, arm))
    if factor.mean is None:
        return text
    edge = "" if arm.inside and relu.inside else ", its best rate at the edge of the search"
    return f"{text}, {'at least ' * bool(never)}{factor.mean:.2f} times ReLU's{_interval(factor)}{edge}"


def _interval(value: stats.Mean) -> str:
    return "" if value.low is None else f" [{value.low:.2f}, {value.high:.2f}]"
