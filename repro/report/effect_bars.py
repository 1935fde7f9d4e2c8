"""The arms of each comparison on a terminal: the effect with a bar, the verdict, what is missing and what it takes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from repro.evidence import quiet
from repro.evidence.comparison import MAIN, Comparison, Effect, plain_text
from repro.report.markdown import effect_interval
from repro.text import counted

if TYPE_CHECKING:
    from rich.table import Table

CELLS = 15
"""Columns of a bar; the middle one is no effect."""
WIDEST = 10.0
"""Percentage points at either end: what lies beyond is drawn there as an arrow."""
LEAST_WIDTH = 76
"""Columns of a terminal from which on bars are drawn."""


def tables(parts: Iterable[Comparison], width: int) -> Iterator["Table | str"]:
    """A table for each comparison that has more than a baseline, in so many columns, and a line on its missing runs."""
    for part in parts:
        if part.effects:
            yield _title(part)
            yield _table(part, width)
            if missing := _missing(part):
                yield missing


def _table(part: Comparison, width: int) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("arm", overflow="fold")
    table.add_column("difference", no_wrap=True)
    if width >= LEAST_WIDTH:
        table.add_column(f"-{WIDEST:g}{' ' * (CELLS // 2 - 3)}0{' ' * (CELLS // 2 - 3)}+{WIDEST:g}", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=len("distinguishable"))
    for effect in sorted(part.effects.values(), key=_order):
        cells = [effect.arm.name, effect_interval(effect), *([bar(effect)] if width >= LEAST_WIDTH else [])]
        table.add_row(*map(Text, (*cells, effect.verdict)))
    return table


def _title(part: Comparison) -> str:
    given = "".join(f" {key}={plain_text(value)}" for key, value in part.given.items())
    place = f"{part.setup}, recipe {part.recipe}{given}, {part.device}, {part.precision}"
    return f"{place}: top-1 error, ten crops, points"


def _order(effect: Effect) -> tuple[bool, float]:
    """The largest effect first, and last what has none."""
    size = effect.differences[MAIN].mean
    return size is None, -(size or 0.0)


def bar(effect: Effect) -> str:
    """The effect as a point on its interval, on an axis from -`WIDEST` to `WIDEST`: `      ──●──   `."""
    found = effect.simultaneous or effect.differences[MAIN]
    if found.mean is None:
        return ""
    cells = [" "] * CELLS
    cells[CELLS // 2] = "│"
    if found.low is not None and found.high is not None:
        for place in range(_cell(found.low), _cell(found.high) + 1):
            cells[place] = "─"
    place = _cell(found.mean)
    cells[place] = "●" if abs(found.mean) <= WIDEST else "▶" if found.mean > 0 else "◀"
    return "".join(cells).rstrip()


def _cell(points: float) -> int:
    inside = max(-WIDEST, min(WIDEST, points))
    return round((inside + WIDEST) / (2 * WIDEST) * (CELLS - 1))


def _missing(part: Comparison) -> str:
    """Says how many runs the pairs lack, and how long they take by those that there are; empty where none is."""
    count = sum(map(len, part.missing.values()))
    if not count:
        return ""
    minutes = quiet.minutes(part.runs)
    time = f", about {count * minutes:.0f} minutes on such a machine" if minutes is not None else ""
    return f"{counted(count, 'run')} missing{time}: the commands stand in the table"
