"""Figures of the benchmark as words, for the terminal and for README.md alike."""

import sys
from collections.abc import Mapping
from typing import Any

from repro.benchmarks.targets import NOT_MEASURED, Row

HEADER = ("what", "ours", "beside", "ours over it", "target", "met")
SUMMARY_HEADER = ("what", "beside", "ours over it", "target", "met")
THROUGHPUT_HEADER = ("batch", "images/s", "of peak FLOP/s", "of bandwidth", "bound, images/s", "bound by")


def tell(name: str, text: str) -> None:
    """One line on stderr, at once."""
    print(f"  {name}: {text}", file=sys.stderr, flush=True)


def cells(row: Row) -> list[str]:
    """A row under `HEADER`. A ratio has the middle half of its rounds in brackets."""
    return [row.name, _value(row.ours, row.unit), _beside(row), _ratio(row), _target(row), _met(row)]


def summary(row: Row) -> list[str]:
    """A row under `SUMMARY_HEADER`: no absolute rates; what has no peer shows its value."""
    found = _ratio(row) if row.peer_name else _value(row.ours, row.unit)
    return [row.name, row.peer_name or "", found, _target(row), _met(row)]


def throughput_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of `repro.benchmarks.throughput.Throughput` as plain values, under `THROUGHPUT_HEADER`."""
    shares = [f"{100 * row[key]:.0f} %" for key in ("flops_share", "bandwidth_share")]
    return [str(row["batch"]), f"{row['images_per_second']:,.0f}", *shares, f"{row['bound']:,.0f}", row["bound_by"]]


def _value(value: float | None, unit: str) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def _beside(row: Row) -> str:
    return f"{row.peer_name}: {_value(row.peer, row.unit)}" if row.peer is not None else row.peer_name or ""


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    form = ".2f" if row.ratio >= 0.1 else ".2g"
    return f"{row.ratio:{form}} [{row.low:{form}}, {row.high:{form}}]"


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"at least {row.target:.3g}" if row.peer_name else f"at most {row.target:g} {row.unit}"


def _met(row: Row) -> str:
    words = {True: "yes", False: "no", NOT_MEASURED: NOT_MEASURED, None: ""}[row.met]
    return f"{words}: {row.reason}" if row.reason else words
