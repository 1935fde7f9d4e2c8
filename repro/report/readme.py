"""The results that README.md shows: written between two marker lines, from records alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from repro import stats
from repro.config import Source
from repro.experiments import BASELINE, ablations
from repro.report import quiet
from repro.report.copies import remark
from repro.report.effects import MAIN, Arm, Comparison
from repro.report.mixed import mixed_code
from repro.report.tables import interval, markdown, processor, published_effect, stem

BEGIN = "<!-- results: written by `python -m repro.compare` -->\n"
END = "<!-- end of results -->\n"
HEADER = ("ablation", "top-1 error, %", "difference, points", "n", "verdict", "published, top-1 / top-5")
SURPRISE_HEADER = ("ablation", "setup, recipe, device", "expected", "difference, points", "verdict")
SURPRISES = 5
FEWEST = 3
"""Seeds; with fewer, an interval says next to nothing."""
OTHER_IMAGES = (Source.embedded.value, Source.imagefolder.value)
"""Images that the package makes itself, and a user's own."""

_SURPRISES = """\
The most surprising: what did not come out as the ablation's file expected, largest effect first.
"""


def updated(readme: Path, parts: Iterable[Comparison]) -> str | None:
    """The text that README.md should have; None where there is no such file or it has no place for results."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return None
    shown = [part for part in parts if is_shown(part)]
    sections = "\n".join([*map(_section, shown), *_surprises(shown)])
    return f"{before}{BEGIN}\n{sections}\n{END}{after}"


def is_shown(part: Comparison) -> bool:
    """Whether it compares something in one of the project's setups as it is, with enough seeds."""
    enough = {arm.name for arm in part.arms if has_enough(arm)}
    return is_own(part) and BASELINE in enough and len(enough) > 1


def is_own(part: Comparison) -> bool:
    """Whether it is of one of the project's setups as it is, on public images."""
    return part.data.source not in OTHER_IMAGES and not part.given


def has_enough(arm: Arm) -> bool:
    """Whether so many of its runs are complete that an interval says something."""
    return len(arm.complete) >= FEWEST


def _section(part: Comparison) -> str:
    minutes = quiet.minutes(run for arm in part.arms for run in arm.complete.values())
    cost = "" if minutes is None else f", {minutes:.1f} minutes of training a run"
    words = remark(part.data.content_hash)
    link = f"results/tables/{stem(part)}.md"
    title = (
        f"[`setup={part.setup} recipe={part.recipe}`]({link}): {part.data.val_images} validation images of"
        f" {part.data.source}{f' ({words})' if words else ''}, ten crops, {processor(part)},"
        f" {part.precision}{cost}.\n"
    )
    shown = list(filter(has_enough, part.arms))
    lines = [title, *mixed_code(part, shown), markdown(HEADER, [_row(part, arm) for arm in shown])]
    if left := len(part.arms) - len(shown):
        lines.append(f"{left} more, of fewer than {FEWEST} seeds, {'is' if left == 1 else 'are'} in the table there.\n")
    return "\n".join(lines)


def _row(part: Comparison, arm: Arm) -> list[str]:
    error = interval(stats.mean(arm.values(MAIN)))
    effect = part.effects.get(arm.name)
    if effect is None:
        return [f"`{arm.name}`", error, "", str(len(arm.learned)), "", ""]
    difference = effect.differences[MAIN]
    cells = [f"`{arm.name}`", error, interval(difference, "+"), str(difference.n), effect.verdict]
    return [*cells, published_effect(arm)]


def _surprises(parts: Sequence[Comparison]) -> list[str]:
    """A table of the arms that contradict what their file expects; nothing where there is none."""
    found = []
    for part in parts:
        for name, effect in part.effects.items():
            difference = effect.differences[MAIN]
            expected = ablations()[name].expects if name in ablations() else ""
            if expected and effect.outcome not in (None, expected) and has_enough(effect.arm):
                where = f"{part.setup}, {part.recipe}, {part.device_type}"
                cells = [f"`{name}`", where, expected, interval(difference, "+"), effect.verdict]
                found.append((-abs(difference.mean or 0.0), cells))
    rows = [cells for _, cells in sorted(found)[:SURPRISES]]
    return [_SURPRISES, markdown(SURPRISE_HEADER, rows)] if rows else []
