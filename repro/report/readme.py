"""The results that README.md shows: written between two marker lines, from records alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from repro import stats
from repro.config import Source
from repro.experiments import ablations
from repro.record import Record
from repro.report.copies import remark
from repro.report.effects import MAIN, Arm, Comparison, comparisons
from repro.report.tables import interval, markdown, outcome, published_effect, stem, threads, verdict

BEGIN = "<!-- results: written by `python -m repro.compare` -->\n"
END = "<!-- end of results -->\n"
HEADER = ("ablation", "top-1 error, %", "difference, points", "n", "verdict", "published, top-1 / top-5")
SURPRISE_HEADER = ("ablation", "setup, recipe", "expected", "difference, points", "verdict")
SURPRISES = 5
MADE_BY_THE_PACKAGE = Source.embedded.value

_SURPRISES = """\
The most surprising: what did not come out as the ablation's file expected, largest effect first.
"""


def updated(readme: Path, runs: Iterable[Record]) -> str | None:
    """The text that README.md should have; None where there is no such file or it has no place for results."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return None
    parts = [part for part in comparisons(runs) if part.effects and part.data.source != MADE_BY_THE_PACKAGE]
    sections = "\n".join([*map(_section, parts), *_surprises(parts)])
    return f"{before}{BEGIN}\n{sections}\n{END}{after}"


def _section(part: Comparison) -> str:
    minutes = [run.cost.minutes for arm in part.arms for run in arm.complete.values()]
    cost = f", {sum(minutes) / len(minutes):.1f} minutes of training a run" if minutes else ""
    words = remark(part.data.content_hash)
    link = f"results/tables/{stem(part)}.md"
    title = (
        f"[`setup={part.setup} recipe={part.recipe}`]({link}): {part.data.val_images} validation images of"
        f" {part.data.source}{f' ({words})' if words else ''}, ten crops, {part.device} with {threads(part)}{cost}.\n"
    )
    return "\n".join([title, markdown(HEADER, [_row(part, arm) for arm in part.arms])])


def _row(part: Comparison, arm: Arm) -> list[str]:
    error = interval(stats.mean(arm.values(MAIN)))
    effect = part.effects.get(arm.name)
    if effect is None:
        return [f"`{arm.name}`", error, "", str(len(arm.complete)), "", ""]
    difference = effect.differences[MAIN]
    words = verdict(difference) if arm.complete else "no complete run"
    return [f"`{arm.name}`", error, interval(difference, "+"), str(difference.n), words, published_effect(arm)]


def _surprises(parts: Sequence[Comparison]) -> list[str]:
    """A table of the arms that contradict what their file expects; nothing where there is none."""
    found = []
    for part in parts:
        for name, effect in part.effects.items():
            difference = effect.differences[MAIN]
            expected = ablations()[name].expects if name in ablations() else ""
            if difference.low is not None and expected and expected != outcome(difference):
                where = f"{part.setup}, {part.recipe}"
                cells = [f"`{name}`", where, expected, interval(difference, "+"), verdict(difference)]
                found.append((-abs(difference.mean or 0.0), cells))
    rows = [cells for _, cells in sorted(found)[:SURPRISES]]
    return [_SURPRISES, markdown(SURPRISE_HEADER, rows)] if rows else []
