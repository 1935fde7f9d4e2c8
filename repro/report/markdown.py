"""Numbers, intervals and tables as Markdown, and the words that all pages share."""

from collections.abc import Iterable, Sequence

from repro.evidence import stats
from repro.evidence.comparison import Comparison


def number(value: float | None, digits: int, sign: str = "") -> str:
    """Writes a number with so many digits behind the point; empty where there is none."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def interval(value: stats.Mean, sign: str = "") -> str:
    """`28.63 [27.20, 30.06]`: mean and 95 % interval; the mean alone at n=1."""
    interval = "" if value.low is None else f" [{number(value.low, 2, sign)}, {number(value.high, 2, sign)}]"
    return number(value.mean, 2, sign) + interval


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def stem(part: Comparison) -> str:
    """Name of the files of a comparison's table, less their suffix."""
    return f"{part.setup}-{part.recipe}-{part.device_type}"
