"""The fidelity ledger as a table: each row with its measured effects."""

from collections.abc import Iterator, Sequence

from repro.evidence.comparison import MAIN, Comparison, plain_text
from repro.evidence.image_copies import remark
from repro.evidence.ledger import measured, read, recipe_differences
from repro.report.markdown import interval

HEADER = ("what", "the paper", "the authors' code", "`recipe=paper`; `recipe=source`", "why", "measured effect")
NOT_MEASURED = "not measured yet"


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
    for part, effect in measured(ablation, parts):
        difference = effect.differences[MAIN]
        if effect.of_other_code or not difference.n:
            yield f"{effect.verdict} ({_place(part)})"
        else:
            mixed = ", mixed code" if effect.mixed else ""
            yield f"{interval(difference, '+')} (n={difference.n}, {_place(part)}{mixed})"


def _place(part: Comparison) -> str:
    """Names where an effect was measured, with a star where the images are not the original ones."""
    star = "*" if remark(part.data.content_hash) else ""
    return f"{part.setup}{star}, recipe {part.recipe}, {part.device_type}"
