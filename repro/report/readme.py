"""The headline in README.md, written between two marker lines from records alone."""

from collections.abc import Iterable
from pathlib import Path

from repro.evidence import stats
from repro.evidence.comparison import MAIN, Arm, Comparison
from repro.evidence.image_copies import remark
from repro.evidence.selection import has_enough, is_shown
from repro.experiments.folder import BASELINE
from repro.report.markdown import effect_interval, interval, stem, table
from repro.report.tables import processor, published_effect

BEGIN = "<!-- results: written by `python -m repro.compare` -->\n"
END = "<!-- end of results -->\n"
HEADER = (
    "one change",
    "top-1 error, %",
    "difference, points",
    "n",
    "verdict",
    "the paper and its authors, top-1 / top-5",
)
ROWS = 5
"""Changes in the headline."""


def updated(readme: Path, parts: Iterable[Comparison]) -> str | None:
    """The text that README.md should have; None where there is no such file or it has no place for results."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return None
    shown = sorted(filter(is_shown, parts), key=_weight, reverse=True)
    lines = [_headline(shown[0]), *_others(shown[1:])] if shown else ["Nothing has been measured yet.\n"]
    return f"{before}{BEGIN}\n{''.join(lines)}\n{END}{after}"


def _weight(part: Comparison) -> tuple[int, int]:
    """The comparison of the most seeds, and then of the most arms, is the headline."""
    (baseline,) = (arm for arm in part.arms if arm.name == BASELINE)
    return len(baseline.learned), sum(map(has_enough, part.arms))


def _headline(part: Comparison) -> str:
    """The baseline and a few changes: those whose effect the authors published, then the largest."""
    measured = [arm for arm in part.arms if arm.name in part.effects and arm.learned and has_enough(arm)]
    order = sorted(measured, key=lambda arm: (not published_effect(arm), -_points(part, arm)))
    rows = sorted(order[:ROWS], key=lambda arm: -_points(part, arm))
    (baseline,) = (arm for arm in part.arms if arm.name == BASELINE)
    words = remark(part.data.content_hash)
    title = (
        f"`setup={part.setup} recipe={part.recipe}`, ten crops of {part.data.val_images} validation images of"
        f" {part.data.source}{f' ({words})' if words else ''}, {processor(part)}, {part.precision}:\n\n"
    )
    count = len(part.arms) - 1
    link = f"\n[All {count} changes](results/tables/{stem(part)}.md), with top-5, centre crop, tests and cost.\n"
    return title + table(HEADER, [_row(part, arm) for arm in (baseline, *rows)]) + link


def _points(part: Comparison, arm: Arm) -> float:
    return part.effects[arm.name].differences[MAIN].mean or 0.0


def _row(part: Comparison, arm: Arm) -> list[str]:
    error = interval(stats.mean(arm.values(MAIN)))
    effect = part.effects.get(arm.name)
    if effect is None:
        return [f"`{arm.name}`", error, "", str(len(arm.learned)), "", ""]
    n = effect.simultaneous.n if effect.simultaneous else effect.differences[MAIN].n
    cells = [f"`{arm.name}`", error, effect_interval(effect), str(n), effect.verdict]
    return [*cells, published_effect(arm)]


def _others(parts: Iterable[Comparison]) -> list[str]:
    """A line that leads to each of the other tables."""
    links = [f"[{part.setup}, {part.recipe}, {part.device}](results/tables/{stem(part)}.md)" for part in parts]
    return [f"\nOther tables of three seeds or more: {'; '.join(links)}.\n"] if links else []
