"""Numbers, intervals and tables as Markdown, and the words that all pages share."""

from collections.abc import Iterable, Sequence

from repro.evidence import stats
from repro.evidence.comparison import MAIN, Comparison, Effect
from repro.evidence.simultaneous import Simultaneous


def number(value: float | None, digits: int, sign: str = "") -> str:
    """Writes a number with so many digits behind the point; empty where there is none."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def interval(value: stats.Mean, sign: str = "") -> str:
    """`28.63 [27.20, 30.06]`: mean and 95 % interval; the mean alone at n=1."""
    interval = "" if value.low is None else f" [{number(value.low, 2, sign)}, {number(value.high, 2, sign)}]"
    return number(value.mean, 2, sign) + interval


def p_value(value: float | None) -> str:
    """`0.012`, `<0.001`; empty where there is none."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def simultaneous_words(value: Simultaneous | None) -> str:
    """`[+0.10, +2.30] Dunnett`; empty where there is none."""
    return "" if value is None else f"[{value.low:+.2f}, {value.high:+.2f}] {value.method.value}"


def effect_interval(effect: Effect) -> str:
    """The difference of ten-crop top-1 with the interval that its verdict follows."""
    whole = effect.simultaneous
    if whole is None:
        return interval(effect.differences[MAIN], "+")
    return f"{whole.mean:+.2f} [{whole.low:+.2f}, {whole.high:+.2f}]"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def stem(part: Comparison) -> str:
    """Name of the files of a comparison's table, less their suffix."""
    return f"{part.setup}-{part.recipe}-{part.device_type}"
