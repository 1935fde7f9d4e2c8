"""The claims board: what the paper claims, what we find, and a verdict, for each of C1 to C27."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from repro.evidence.board import RECIPES, board, eligible
from repro.evidence.claimed_errors import published_rows
from repro.evidence.claims import AuthorsRun, Claim, Finding, Quantity, Verdict, load, standard_errors
from repro.evidence.comparison import CROP_WORDS, TOP_WORDS, Comparison
from repro.evidence.image_copies import remark
from repro.evidence.stats import Difference, Mean, holm
from repro.report.markdown import interval, p_value, stem, table
from repro.report.tables import hashes

WRITTEN_BY = """\
Written by `python -m repro.compare` from `experiments/claims.yaml` and the records in `../runs`; do not edit.
"""
RULES = """\
A claim has a line for each measure, setup, recipe and kind of device that answers it, and stands under each of its
verdicts above; nothing is averaged over lines. `experiments/README.md` describes setups and recipes. An effect is the
error without an ingredient less that of the baseline, paired by seed: a positive one speaks for the ingredient.
Brackets are 95 % intervals over seeds (Student t), n counts pairs. A verdict is of its line alone; `p, Holm` is the
two-sided p of its test corrected for all lines that have one (Holm 1979): where it is below 0.05, the effect stands
even among so many.
Two errors with a stroke between them are top-1 / top-5.

- `holds`: the interval of the effect lies above 0 and, where a size is published, holds it. An error: its interval
  holds the published one. A number: ours is the printed one, rounded or cut off to its digits. A method: `recipe=paper`
  does so, as the check or the tests show.
- `holds in direction`: the interval lies above 0, and the published size outside it. Published sizes are of ImageNet;
  with fewer classes, smaller images or a shorter run an effect may differ in size. An error: lower than published.
- `does not hold`: the interval lies below 0, the error above the published one, or the number is another one.
- `not distinguishable, n=K`: the interval holds 0; or n=1, which gives none, however large the difference.
- `not run here`: no records answer the claim; the line says what would.

`mixed code` marks pairs of runs by different commits, from before records had a fingerprint of their numerics: a
difference may be the code's. A run that did not learn is in no mean. `../README.md` explains
both.

The authors' errors are un-rounded, from the comments in their parameter files, of one run each. The standard error of
their differences counts the sampling of the images alone, as if each of the two nets had met images of its own. Runs of
other recipes than `paper` and `source`, with keys set by hand beside the ablation, and on images that the package makes
itself or a user brings, answer no claim.
"""
STAR = "A star marks images that are not the original ones: "
HEADER = (
    "claim", "what it says", "the paper, and the authors' runs", "what we find", "verdict", "p, Holm", "evidence",
)  # fmt: skip
COLUMNS = (
    "claim", "section", "kind", "statement", "paper", "setup", "recipe", "device", "finding", "verdict", "p", "p_holm",
)  # fmt: skip
CSV_START = ",".join(COLUMNS)
"""How the board begins as CSV."""


def render(parts: Iterable[Comparison]) -> dict[str, str]:
    """File name -> content of the board. Raises UserError for a wrong `experiments/claims.yaml`."""
    claims, parts = load(), eligible(parts)
    remarks = sorted({remark(part.data.content_hash) for part in parts} - {""})
    answers = board(parts)
    adjusted = corrected(answers)
    rows = [row for name, claim in claims.items() for row in _rows(name, claim, answers[name], parts, adjusted)]
    sections = [
        "# The paper's claims\n",
        WRITTEN_BY,
        table(("verdict", "claims"), _at_a_glance(answers)),
        table(HEADER, rows),
        "## How to read this\n",
        RULES,
        *([f"{STAR}{'; '.join(remarks)}.\n"] if remarks else []),
    ]
    return {"claims.md": "\n".join(sections), "claims.csv": _csv(claims, answers, adjusted)}


def corrected(answers: Mapping[str, Sequence[Finding]]) -> dict[int, float]:
    """The p-values of all findings that have a test, by the finding's `id`, corrected for their number."""
    p = {id(finding): finding.tested for found in answers.values() for finding in found if finding.tested is not None}
    return dict(zip(p, holm(list(p.values())), strict=True))


def text(finding: Finding) -> str:
    """Says what was found, without where."""
    about = ", ".join(filter(None, (f"`{finding.arm}`" if finding.arm else "", finding.measure)))
    beside = [" ".join(filter(None, (one.what, one.words, _size(one)))) for one in finding.beside]
    if finding.value is None:
        clauses = beside
    else:
        own = _amount(finding.value, finding.unit)
        clauses = [f"{own} ({'; '.join(beside)})" if beside else own]
    found = "; ".join([*clauses, *finding.words])
    return f"{about}: {found}" if about else found


def _size(quantity: Quantity) -> str:
    if quantity.value is None:
        return ""
    whole = isinstance(quantity.value, Difference) and quantity.unit
    size = _signed(quantity.value)
    return _amount(quantity.value, quantity.unit) if whole else f"{size} {quantity.unit}".rstrip()


def _amount(value: Mean, unit: str) -> str:
    """`+2.10 [+1.70, +2.50] points, n=3`."""
    if value.n == 0:
        return "no pair of complete runs" if isinstance(value, Difference) else "no pair of runs that both get there"
    return f"{_signed(value)} {unit}, n={value.n}"


def _signed(value: Mean) -> str:
    return interval(value, "+" if isinstance(value, Difference) else "")


def verdict(finding: Finding) -> str:
    """Says the verdict in words, with n where nothing could be told."""
    told = finding.verdict is Verdict.not_distinguishable
    return f"{finding.verdict.value}, n={finding.n}" if told else finding.verdict.value


def evidence(finding: Finding) -> str:
    """Links to the records or tables behind it, from the file beside these; else what checks it."""
    if finding.part is None:
        return _code(finding.checked_by)
    if finding.records:
        place = f"../runs/{finding.part.setup}/{finding.part.recipe}"
        return ", ".join(f"[{name}]({place}/{name})" for name in finding.records)
    return ", ".join(f"[table]({stem(part)}.md)" for part in (finding.part, finding.other) if part)


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _at_a_glance(answers: Mapping[str, Sequence[Finding]]) -> list[list[str]]:
    """Each verdict and the claims that have it on one line at least, with the setups of those lines.

    Where other lines of a claim have another verdict, with what tells these from them.
    """
    rows = []
    for one in Verdict:
        claims = []
        for name, found in answers.items():
            same = [finding for finding in found if finding.verdict is one]
            several = len({finding.verdict for finding in found if finding.part}) > 1
            places = sorted({_place(finding, finding.part, several) for finding in same if finding.part})
            claims += [f"{name} ({'; '.join(places)})" if places else name] * bool(same)
        rows.append([one.value, ", ".join(claims)])
    return rows


def _place(finding: Finding, part: Comparison, several: bool) -> str:
    """Names where a line comes from: its setup, and where a claim has several verdicts its device and measure too."""
    recipe = "" if part.recipe == RECIPES[0] else f"`{part.recipe}`"
    return " ".join(
        filter(None, (f"`{part.setup}`", *([recipe, part.device_type, finding.measure] if several else [])))
    )


def _rows(
    name: str, claim: Claim, found: Sequence[Finding], parts: Sequence[Comparison], adjusted: Mapping[int, float]
) -> list[list[str]]:
    """A line a finding; the claim stands on the first."""
    titles = [[f"{name} ({claim.section})", claim.statement, _paper(claim)]] + [["", "", ""]] * (len(found) - 1)
    return [
        [
            *title,
            _where(finding.part, parts) + text(finding),
            verdict(finding),
            p_value(adjusted.get(id(finding))),
            evidence(finding),
        ]
        for title, finding in zip(titles, found, strict=True)
    ]


def _where(part: Comparison | None, parts: Sequence[Comparison]) -> str:
    """Setup, recipe and kind of device, and as much more as tells the comparison from others."""
    if part is None:
        return ""
    star = "*" if remark(part.data.content_hash) else ""
    words = f"`{part.setup}`{star}, `{part.recipe}`, {part.device_type}"
    if sum((part.setup, part.recipe, part.device_type) == (p.setup, p.recipe, p.device_type) for p in parts) > 1:
        words += f" ({part.device}, {hashes(part)}, {part.precision})"
    return f"{words}: "


def _paper(claim: Claim) -> str:
    """Says what the paper claims, what the authors' runs gave, and what a reader should know about both."""
    rows = published_rows(claim)
    lines = [claim.paper]
    if rows and claim.authors:
        changed, plain = claim.authors
        lines.append(f"authors: {_errors(changed)} against {_errors(plain)}, {rows[0]}{_weakness(changed, plain)}")
    elif claim.authors:
        lines += [f"authors{run.what and f', {run.what}'}: {_errors(run)} ({_data(run)})" for run in claim.authors]
    else:
        lines += [f"`{row.ablation}`: {row}" for row in rows]
    return "<br>".join(lines + [claim.note] * bool(claim.note))


def _data(run: AuthorsRun) -> str:
    return f"{run.data}, {CROP_WORDS[run.crops]}, n={run.n}"


def _errors(run: AuthorsRun) -> str:
    return f"{run.top1:.4f} / {run.top5:.4f}"


def _weakness(changed: AuthorsRun, plain: AuthorsRun) -> str:
    """Says so where the authors' single runs differ by less than two standard errors."""
    doubled = {top: 2 * error for top, error in standard_errors(changed, plain).items()}
    weak = [top for top, error in doubled.items() if getattr(changed, top) - getattr(plain, top) < error]
    texts = [f"{TOP_WORDS[top]} ({doubled[top]:.2f})" for top in weak]
    return f": **less than two standard errors** of that comparison in {' and '.join(texts)}" if weak else ""


def _csv(claims: Mapping[str, Claim], answers: Mapping[str, Sequence[Finding]], adjusted: Mapping[int, float]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, claim in claims.items():
        for finding in answers[name]:
            part = finding.part
            about = (name, claim.section, claim.kind.value, claim.statement, claim.paper)
            where = (part.setup, part.recipe, part.device) if part else ("", "", "")
            p = (None if value is None else f"{value:.3g}" for value in (finding.tested, adjusted.get(id(finding))))
            writer.writerow([*about, *where, text(finding), verdict(finding), *p])
    return file.getvalue()
