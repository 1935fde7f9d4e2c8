"""Each claim of the paper with what answers it."""

from collections.abc import Iterable, Sequence

from repro.evidence import claimed_arithmetic, claimed_curves, claimed_errors, claimed_kernels, claimed_rates
from repro.evidence.claims import Claim, Finding, Verdict, find_arm, load
from repro.evidence.comparison import Comparison, settings
from repro.evidence.selection import is_own, is_tuned

RECIPES = ("paper", "source")
"""The exact ones: runs of others answer no claim."""


def eligible(parts: Iterable[Comparison]) -> list[Comparison]:
    """The comparisons that may answer a claim."""
    return [part for part in parts if part.recipe in RECIPES and (is_own(part) or is_tuned(part))]


def board(parts: Sequence[Comparison]) -> dict[str, list[Finding]]:
    """The findings of every claim, by its id. Raises UserError for a wrong `experiments/claims.yaml`."""
    return {name: findings(claim, parts) for name, claim in load().items()}


def findings(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """Answers a claim by one finding or more."""
    own = [part for part in parts if settings(part.arms[0].runs[0])["model.net"] in claim.nets]
    found = [finding for name in claim.checks for finding in _checked(claim, name, own)]
    if claim.tests and not claim.checks:
        found.append(Finding(Verdict.holds, words=("`recipe=paper` does so",), checked_by=tuple(claim.tests)))
    absent = [name for name in claim.ablations if not any(find_arm(part, name).runs for part in own)]
    if not found or (absent and claim.measures):
        names = ", ".join(f"`{name}`" for name in absent or claim.ablations)
        found.append(Finding(Verdict.not_run, words=(f"needs {claim.needs or f'runs of {names} beside a baseline'}",)))
    return found


def _checked(claim: Claim, name: str, parts: Sequence[Comparison]) -> list[Finding]:
    if name not in claimed_arithmetic.CHECKS:
        checks = claimed_errors.CHECKS | claimed_curves.CHECKS | claimed_kernels.CHECKS | claimed_rates.CHECKS
        return checks[name](claim, parts)
    right, text = claimed_arithmetic.CHECKS[name](claim.values)
    checked_by = (f"{claimed_arithmetic.__name__}.{name}", *claim.tests)
    return [Finding(Verdict.holds if right else Verdict.does_not_hold, words=(text,), checked_by=checked_by)]
