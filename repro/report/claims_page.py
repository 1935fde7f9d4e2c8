"""The claims board: what the paper claims, what we find, and a verdict, for each of C1 to C27."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from repro.evidence import claimed_arithmetic, claimed_curves, claimed_errors
from repro.evidence.claimed_errors import TOP_WORDS, published_rows
from repro.evidence.claims import (
    DOES_NOT_HOLD,
    HOLDS,
    IN_DIRECTION,
    NOT_DISTINGUISHABLE,
    NOT_RUN,
    AuthorsRun,
    Claim,
    Finding,
    find_arm,
    load,
    standard_errors,
)
from repro.evidence.comparison import Comparison, settings
from repro.evidence.image_copies import remark
from repro.report.readme import is_own
from repro.report.tables import CROP_WORDS, hashes, markdown

RECIPES = ("paper", "source")
WRITTEN_BY = """\
Written by `python -m repro.compare` from `experiments/claims.yaml` and the records in `../runs`; do not edit.
"""
RULES = f"""\
A claim has a line for each measure, setup, recipe and kind of device that answers it, and stands under each of its
verdicts above; nothing is averaged over lines. `experiments/README.md` describes setups and recipes. An effect is the
error without an ingredient less that of the baseline, paired by seed: a positive one speaks for the ingredient.
Brackets are 95 % intervals over seeds (Student t), n counts pairs, and nothing is corrected for the number of lines.
Two errors with a stroke between them are top-1 / top-5.

- `{HOLDS}`: the interval of the effect lies above 0 and, where a size is published, holds it. An error: its interval
  holds the published one. A number: ours is the printed one, rounded or cut off to its digits. A method: `recipe=paper`
  does so, as the check or the tests show.
- `{IN_DIRECTION}`: the interval lies above 0, and the published size outside it. Published sizes are of ImageNet;
  with fewer classes, smaller images or a shorter run an effect may differ in size. An error: lower than published.
- `{DOES_NOT_HOLD}`: the interval lies below 0, the error above the published one, or the number is another one.
- `{NOT_DISTINGUISHABLE}, n=K`: the interval holds 0; or n=1, which gives none, however large the difference.
- `{NOT_RUN}`: no records answer the claim; the line says what would.

`mixed code` marks pairs of runs by different commits, from before records had a fingerprint of their numerics: a
difference may be the code's. A run that did not learn is in no mean. `../README.md` explains
both.

The authors' errors are un-rounded, from the comments in their parameter files, of one run each. The standard error of
their differences counts the sampling of the images alone, as if each of the two nets had met images of its own. Runs of
other recipes than `paper` and `source`, with keys set by hand beside the ablation, and on images that the package makes
itself or a user brings, answer no claim.
"""
STAR = "A star marks images that are not the original ones: "
HEADER = ("claim", "what it says", "the paper, and the authors' runs", "what we find", "verdict", "evidence")
COLUMNS = (
    "claim", "section", "kind", "statement", "paper", "setup", "recipe", "device", "finding", "verdict",
)  # fmt: skip


def render(parts: Iterable[Comparison]) -> dict[str, str]:
    """File name -> content of the board. Raises UserError for a wrong `experiments/claims.yaml`."""
    claims = load()
    parts = [part for part in parts if part.recipe in RECIPES and is_own(part)]
    remarks = sorted({remark(part.data.content_hash) for part in parts} - {""})
    answers = {name: findings(claim, parts) for name, claim in claims.items()}
    rows = [row for name, claim in claims.items() for row in _rows(name, claim, answers[name], parts)]
    sections = [
        "# The paper's claims\n",
        WRITTEN_BY,
        markdown(("verdict", "claims"), _at_a_glance(answers)),
        markdown(HEADER, rows),
        "## How to read this\n",
        RULES,
        *([f"{STAR}{'; '.join(remarks)}.\n"] if remarks else []),
    ]
    return {"claims.md": "\n".join(sections), "claims.csv": _csv(claims, answers)}


def findings(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """What answers a claim: one line or more."""
    own = [part for part in parts if settings(part.arms[0].runs[0])["model.net"] in claim.nets]
    found = [finding for name in claim.checks for finding in _checked(claim, name, own)]
    if claim.tests and not claim.checks:
        found.append(Finding("`recipe=paper` does so", HOLDS, _code(claim.tests)))
    absent = [name for name in claim.ablations if not any(find_arm(part, name).runs for part in own)]
    if not found or (absent and claim.measures):
        needs = claim.needs or f"runs of {_code(absent or claim.ablations)} beside a baseline"
        found.append(Finding(f"needs {needs}", NOT_RUN))
    return found


def _checked(claim: Claim, name: str, parts: Sequence[Comparison]) -> list[Finding]:
    if name not in claimed_arithmetic.CHECKS:
        return (claimed_errors.CHECKS | claimed_curves.CHECKS)[name](claim, parts)
    right, text = claimed_arithmetic.CHECKS[name](claim.values)
    evidence = _code([f"repro.evidence.claimed_arithmetic.{name}", *claim.tests])
    return [Finding(text, HOLDS if right else DOES_NOT_HOLD, evidence)]


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _at_a_glance(answers: Mapping[str, Sequence[Finding]]) -> list[list[str]]:
    """Each verdict and the claims that have it on one line at least, with the setups of those lines.

    Where other lines of a claim have another verdict, with what tells these from them.
    """
    rows = []
    for verdict in (HOLDS, IN_DIRECTION, DOES_NOT_HOLD, NOT_DISTINGUISHABLE, NOT_RUN):
        claims = []
        for name, found in answers.items():
            same = [finding for finding in found if finding.verdict.partition(",")[0] == verdict]
            several = len({finding.verdict.partition(",")[0] for finding in found if finding.part}) > 1
            places = sorted({_place(finding, finding.part, several) for finding in same if finding.part})
            claims += [f"{name} ({'; '.join(places)})" if places else name] * bool(same)
        rows.append([verdict, ", ".join(claims)])
    return rows


def _place(finding: Finding, part: Comparison, several: bool) -> str:
    """Where a line comes from: its setup, and where a claim has several verdicts its device and measure too."""
    recipe = "" if part.recipe == RECIPES[0] else f"`{part.recipe}`"
    return " ".join(
        filter(None, (f"`{part.setup}`", *([recipe, part.device_type, finding.measure] if several else [])))
    )


def _rows(name: str, claim: Claim, found: Sequence[Finding], parts: Sequence[Comparison]) -> list[list[str]]:
    """A line a finding; the claim stands on the first."""
    titles = [[f"{name} ({claim.section})", claim.statement, _paper(claim)]] + [["", "", ""]] * (len(found) - 1)
    return [
        [*title, _where(finding.part, parts) + finding.text, finding.verdict, finding.evidence]
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
    """What the paper says, what the authors' runs gave, and what a reader should know about both."""
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


def _csv(claims: Mapping[str, Claim], answers: Mapping[str, Sequence[Finding]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, claim in claims.items():
        for finding in answers[name]:
            part = finding.part
            about = (name, claim.section, claim.kind.value, claim.statement, claim.paper)
            where = (part.setup, part.recipe, part.device) if part else ("", "", "")
            writer.writerow([*about, *where, finding.text, finding.verdict])
    return text.getvalue()
