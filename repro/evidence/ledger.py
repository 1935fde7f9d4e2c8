"""The fidelity ledger, `experiments/ledger.yaml`: paper, authors' code, our choice, why, and what it costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from repro.evidence.comparison import Comparison, Effect
from repro.evidence.selection import has_enough, is_own
from repro.experiments import folder, typed_yaml
from repro.experiments.naming import changed, plain_settings


@dataclass(frozen=True)
class Row:
    """One difference or ambiguity; the file explains the fields."""

    title: str
    paper: str
    source: str
    ours: str
    why: str
    keys: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()
    inference: bool = False


@cache
def read() -> tuple[Row, ...]:
    """The rows of the ledger. Raises UserError for an unknown key or a wrong type."""
    path = folder.EXPERIMENTS / "ledger.yaml"
    return tuple(typed_yaml.build(path, row, Row) for row in typed_yaml.load_list(path))


def recipe_differences() -> dict[str, tuple[Any, Any]]:
    """Settings in which the two exact recipes differ before a setup changes them: dotted key -> (paper, source)."""
    return changed(plain_settings("paper", "ilsvrc2012"), plain_settings("source", "ilsvrc2012"))


def measured(ablation: str, parts: Sequence[Comparison]) -> Iterator[tuple[Comparison, Effect]]:
    """The effects of an ablation that have seeds enough to be told, each with its comparison."""
    for part in parts:
        effect = part.effects.get(ablation)
        if effect is not None and is_own(part) and has_enough(effect.baseline) and has_enough(effect.arm):
            yield part, effect
