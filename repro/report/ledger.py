"""The fidelity ledger, `experiments/ledger.yaml`: paper, authors' code, our choice, why, and what it costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from omegaconf import OmegaConf

from repro.evidence.comparison import MAIN, Comparison, plain_text
from repro.evidence.image_copies import remark
from repro.experiments.folder import EXPERIMENTS
from repro.experiments.naming import changed, plain_settings
from repro.report.readme import has_enough, is_own
from repro.report.tables import interval

HEADER = ("what", "the paper", "the authors' code", "`recipe=paper`; `recipe=source`", "why", "measured effect")
NOT_MEASURED = "not measured yet"


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
    """The rows of the ledger."""
    plain = cast(list[dict[str, Any]], OmegaConf.to_container(OmegaConf.load(EXPERIMENTS / "ledger.yaml")))
    tuples: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()} for row in plain
    ]
    return tuple(Row(**row) for row in tuples)


def recipe_differences() -> dict[str, tuple[Any, Any]]:
    """Settings in which the two exact recipes differ before a setup changes them: dotted key -> (paper, source)."""
    return changed(plain_settings("paper", "ilsvrc2012"), plain_settings("source", "ilsvrc2012"))


def rows(parts: Sequence[Comparison]) -> Iterator[list[str]]:
    """Cells of each row, with the effects that the comparisons give."""
    for row in read():
        source = f"{row.source} *(inferred)*" if row.inference else row.source
        settings = ", ".join(_setting(key) for key in row.keys)
        ours = f"{row.ours} ({settings})" if settings else row.ours
        yield [row.title, row.paper, source, ours, row.why, _measured(row.ablations, parts)]


def _setting(key: str) -> str:
    paper, source = recipe_differences()[key]
    return f"`{key}={plain_text(paper)}`; `{plain_text(source)}`"


def _measured(ablations: Sequence[str], parts: Sequence[Comparison]) -> str:
    if not ablations:
        return ""
    return "; ".join(f"`{name}`: {', '.join(_effects(name, parts)) or NOT_MEASURED}" for name in ablations)


def _effects(ablation: str, parts: Sequence[Comparison]) -> Iterator[str]:
    for part in parts:
        effect = part.effects.get(ablation)
        if effect is None or not (is_own(part) and has_enough(effect.baseline) and has_enough(effect.arm)):
            continue
        difference = effect.differences[MAIN]
        if effect.of_other_code or not difference.n:
            yield f"{effect.verdict} ({_place(part)})"
        else:
            mixed = ", mixed code" if effect.mixed else ""
            yield f"{interval(difference, '+')} (n={difference.n}, {_place(part)}{mixed})"


def _place(part: Comparison) -> str:
    """Where an effect was measured; a star where the images are not the original ones, as the table there says."""
    star = "*" if remark(part.data.content_hash) else ""
    return f"{part.setup}{star}, recipe {part.recipe}, {part.device_type}"
