"""The largest effects of each comparison with their verdicts, in a few lines for the terminal."""

from collections.abc import Iterable, Iterator

from repro.evidence.comparison import MAIN, Comparison, Effect, plain_text
from repro.report.markdown import effect_interval

LARGEST = 3
"""Effects told of a comparison, the largest."""


def lines(parts: Iterable[Comparison]) -> list[str]:
    """A few for each comparison that has more than a baseline."""
    return [line for part in parts if part.effects for line in _part(part)]


def _part(part: Comparison) -> Iterator[str]:
    given = "".join(f" {key}={plain_text(value)}" for key, value in part.given.items())
    yield f"{part.setup}, recipe {part.recipe}{given}, {part.device}, {part.precision}: top-1 error, ten crops, points"
    known = [effect for effect in part.effects.values() if effect.differences[MAIN].n]
    largest = sorted(known, key=lambda effect: -abs(effect.differences[MAIN].mean or 0.0))[:LARGEST]
    without = [effect for effect in part.effects.values() if not effect.differences[MAIN].n]
    for effect in [*largest, *without[:LARGEST]]:
        yield f"  {_line(effect)}"
    if more := len(part.effects) - len(largest) - len(without[:LARGEST]):
        yield f"  and {more} more in the table"


def _line(effect: Effect) -> str:
    return "  ".join(filter(None, (effect.arm.name, effect_interval(effect), effect.verdict)))
