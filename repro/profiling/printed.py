"""The tables of a profile on the screen."""

import re

import pandas as pd
from rich import box
from rich.table import Table

SHOWN = 0.5  # % of the step: shorter rows are in the files only
WIDTH = 142  # columns that the table by kernel takes
_SURROUNDINGS = re.compile(r"^void |(\w+|\(anonymous namespace\))::")  # of a C++ function's name


def step_table(table: pd.DataFrame, title: str, width: int) -> Table:
    """One line a row of at least `SHOWN` %, and the sum of all; `table` is one of `repro.profiling.breakdown`.

    A terminal of too few columns shows times alone: the files have the rest.
    """
    narrow = width < WIDTH
    rest = "the files have operations and bytes" if narrow else "% of ceiling: of the one that binds the row"
    shown = _titled(table, title, f"rows of {SHOWN} % and more; {rest}")
    for name in ("ms", "%", "calls", *(() if narrow else ("GFLOP", "MB", "GFLOP/s", "GB/s", "% of ceiling"))):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("bound", no_wrap=True)
    for row in table[table["share_percent"] >= SHOWN].itertuples(index=False):
        time = (f"{row.milliseconds:.3f}", f"{row.share_percent:.1f}", f"{row.calls:g}")
        work = [] if narrow else [_figure(value) if row.bound else "" for value in row[5:10]]
        shown.add_row(_short(row[0]), str(row.phase), *time, *work, str(row.bound))
    shown.add_section()
    shown.add_row("all rows", "", f"{table['milliseconds'].sum():.3f}", f"{table['share_percent'].sum():.1f}")
    return shown


def difference_table(table: pd.DataFrame, title: str, labels: tuple[str, str]) -> Table:
    """One line a row that changes by at least `SHOWN` %, and the sum of all; `labels` of reference and other."""
    shown = _titled(table, title, f"rows of {SHOWN} % and more of the step of {labels[0]}")
    for name in (f"{labels[0]}, ms", f"{labels[1]}, ms", "difference, ms", "% of the step"):
        shown.add_column(name, justify="right")
    for row in table[table["difference_percent"].abs() >= SHOWN].itertuples(index=False):
        shown.add_row(_short(row[0]), str(row.phase), *_changes(row[2:]))
    shown.add_section()
    shown.add_row("all rows", "", *_changes(table[list(table.columns[2:])].sum()))
    return shown


def _titled(table: pd.DataFrame, title: str, caption: str) -> Table:
    shown = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column(str(table.columns[0]), overflow="ellipsis", no_wrap=True, max_width=48)
    shown.add_column("phase", no_wrap=True)
    return shown


def _short(name: object) -> str:
    """A kernel's name begins with what tells it from others; the files have the whole."""
    return _SURROUNDINGS.sub("", str(name))


def _changes(values: "tuple[float, ...] | pd.Series[float]") -> tuple[str, ...]:
    reference, other, difference, percent = values
    return f"{reference:.3f}", f"{other:.3f}", f"{difference:+.3f}", f"{percent:+.1f}"


def _figure(value: float) -> str:
    """Three digits, or so few that they fit a narrow column."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.0e}"
