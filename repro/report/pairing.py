"""Why verdicts follow the pooled interval: what pairing by seed gains here, for results/README.md."""

import statistics
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from repro.evidence import simultaneous
from repro.evidence.comparison import MAIN, Arm, Comparison
from repro.evidence.selection import has_enough, is_shown
from repro.evidence.simultaneous import Method
from repro.experiments.folder import BASELINE
from repro.report.markdown import number, stem, table

BEGIN = "<!-- intervals: written by `python -m repro.compare` -->\n"
END = "<!-- end of intervals -->\n"
HEADER = ("comparison", "n", "arms", "correlation over seeds", *(f"{method.value}, points" for method in Method))


def updated(readme: Path, parts: Iterable[Comparison]) -> str | None:
    """The text that results/README.md should have; None where there is no such file or it has no place for it."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return None
    rows = [row for part in parts if is_shown(part) and (row := _row(part))]
    return f"{before}{BEGIN}\n{table(HEADER, rows)}\n{END}{after}"


def _row(part: Comparison) -> list[str] | None:
    """Medians over the arms that learned at every seed of the baseline, as spread as that; None where there is none."""
    (baseline,) = (arm for arm in part.arms if arm.name == BASELINE)
    control = baseline.values(MAIN)
    arms = {arm.name: arm.values(MAIN) for arm in part.arms if _counts(part, arm)}
    arms = {name: values for name, values in arms.items() if values.keys() == control.keys()}
    arms = {name: values for name, values in arms.items() if simultaneous.same_spread(control, values)}
    if not arms:
        return None
    seeds = sorted(control)
    own = [control[seed] for seed in seeds]
    correlations = [float(np.corrcoef(own, [values[seed] for seed in seeds])[0, 1]) for values in arms.values()]
    widths = [
        statistics.median((one.high - one.low) / 2 for one in simultaneous.by_method(control, arms, method).values())
        for method in Method
    ]
    name = f"[{part.setup}, {part.recipe}, {part.device_type}](tables/{stem(part)}.md)"
    numbers = [number(statistics.median(correlations), 2, "+"), *(number(width, 2) for width in widths)]
    return [name, str(len(seeds)), str(len(arms)), *numbers]


def _counts(part: Comparison, arm: Arm) -> bool:
    """Tells whether its runs are draws of their own beside the baseline's, and enough."""
    effect = part.effects.get(arm.name)
    return effect is not None and has_enough(arm) and bool(arm.learned) and effect.branch is None
