"""The page of a suite that tunes a key: what each arm's search found, and its runs at its own best value."""

import math
from collections.abc import Iterable, Sequence

from repro.evidence import stats
from repro.evidence.claimed_rates import as_factor, epochs, factor_in_doublings
from repro.evidence.comparison import MAIN, Arm, Comparison
from repro.evidence.rate_search import TunedArm, tuned_arms
from repro.experiments.suites import MINIVAL, STOP, Suite
from repro.report.markdown import interval, table

_WORDS = """\
{question}

All runs have `{given}`. Each arm is run at its own best `{key}`: of those in the second column, the one of {judged} at
seed {first}; it must lie between others. Brackets hold 95 % intervals over seeds (Student t), paired by seed with the
first arm. `python -m repro.run suite={name}` runs what is missing.
"""


def render(suite: Suite, parts: Iterable[Comparison]) -> str:
    """The page, as Markdown, with a section for each arithmetic."""
    arms = tuned_arms(suite, {run.folder: run for part in parts for run in part.runs}.values())
    (key,) = suite.tune
    stops = any(word.startswith(f"{STOP}=") for word in suite.given)
    judged = f"the fewest epochs to `{STOP}`" if stops else f"the least error on {MINIVAL:.0%} of the training images"
    words = _WORDS.format(
        question=suite.question,
        given=" ".join(suite.given),
        key=key,
        judged=judged,
        first=suite.seed[0],
        name=suite.name,
    )
    measured = ("epochs", "times the first's") if stops else ("top-1 error, ten crops", "difference")
    header = ("arm", f"`{key}`: {'epochs' if stops else 'minival error'}", "best", *measured, "n", "notes")
    sections = []
    for kind in sorted({arm.arithmetic for arm in arms}):
        own = [arm for arm in arms if arm.arithmetic == kind]
        devices = ", ".join(sorted({device for arm in own for device in arm.devices}))
        sections.append(f"## {kind}: {devices}\n\n{table(header, [_row(own, arm, stops) for arm in own])}")
    return "\n".join([f"# Suite `{suite.name}`: setup `{suite.setup}`\n", words, *(sections or ["No records yet.\n"])])


def _row(arms: Sequence[TunedArm], arm: TunedArm, stops: bool) -> list[str]:
    tried = ", ".join(f"{value:g}: {_shown(measure)}" for value, measure in sorted(arm.measures.items()))
    name = f"`{arm.ablation}`"
    if arm.best is None:
        missing = [value for value in arm.grid if value not in arm.search]
        note = f"not tried yet: {', '.join(f'{value:g}' for value in missing)}" if missing else "none gets there"
        return [name, tried, "", "", "", "0", note]
    errors = {run.seed: run for run in arm.runs.values()}
    value = stats.mean(epochs(arm)) if stops else stats.mean(Arm(arm.ablation, list(errors.values())).values(MAIN))
    notes = [] if arm.inside else ["the best is at the edge of the grid"]
    if never := [seed for seed, run in arm.runs.items() if stops and run.epochs_to_train_error is None]:
        notes.append(f"{len(never)} of {len(arm.runs)} do not get there: at least so many")
    return [
        name,
        tried,
        f"{arm.best:g}",
        interval(value),
        _beside(arms[0], arm, stops),
        str(len(arm.runs)),
        "; ".join(notes),
    ]


def _shown(measure: float) -> str:
    return f"{measure:.2f}" if math.isfinite(measure) else "none"


def _beside(first: TunedArm, arm: TunedArm, stops: bool) -> str:
    """The factor or the difference against the first arm; nothing for that itself."""
    if arm is first or not first.runs:
        return ""
    if stops:
        return interval(as_factor(factor_in_doublings(first, arm)))
    own, other = (Arm(one.ablation, list(one.runs.values())).values(MAIN) for one in (arm, first))
    return interval(stats.paired_difference(other, own), "+")
