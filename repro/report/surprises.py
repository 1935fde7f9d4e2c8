"""The arms that did not come out as the file of the ablation expected."""

from collections.abc import Iterable

from repro.evidence.comparison import MAIN, Comparison
from repro.evidence.selection import has_enough, is_shown
from repro.experiments.registry import ablations
from repro.report.markdown import effect_interval, table

HEADER = ("ablation", "setup, recipe, device", "expected", "difference, points", "verdict")
MOST = 5


def section(parts: Iterable[Comparison]) -> str:
    """A table of the arms that contradict what their file expects, largest effect first; empty where there is none."""
    found = []
    for part in filter(is_shown, parts):
        for name, effect in part.effects.items():
            difference = effect.differences[MAIN]
            expected = ablations()[name].expects if name in ablations() else ""
            if expected and effect.outcome not in (None, expected) and has_enough(effect.arm):
                where = f"{part.setup}, {part.recipe}, {part.device_type}"
                cells = [f"`{name}`", where, expected, effect_interval(effect), effect.verdict]
                found.append((-abs(difference.mean or 0.0), cells))
    rows = [cells for _, cells in sorted(found)[:MOST]]
    title = "The most surprising: what did not come out as the ablation's file expected, largest effect first."
    return f"\n{title}\n\n{table(HEADER, rows)}" if rows else ""
