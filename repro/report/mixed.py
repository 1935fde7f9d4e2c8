"""The remark of a page whose runs several commits made, where no fingerprint says that they agree; and the remedy."""

from collections.abc import Collection, Iterable

from repro.evidence.comparison import Arm, Comparison, Effect
from repro.experiments.folder import BASELINE


def mixed_code(part: Comparison, arms: Collection[Arm]) -> list[str]:
    """Lines about these arms of a comparison; none where their numerics are known, or one clean commit made all."""
    effects = [part.effects[arm.name] for arm in arms if arm.name in part.effects]
    baseline = {run.seed for arm in part.arms if arm.name == BASELINE for run in arm.runs}
    seeds = {seed for effect in effects for seed in effect.mixed} or baseline
    return mixed_words(arms, effects, f"{part.command(BASELINE, *sorted(seeds))} force=true")


def mixed_words(arms: Collection[Arm], effects: Collection[Effect], remedy: str) -> list[str]:
    """The same for arms and their effects; `remedy` is the command to begin with."""
    runs = [run for arm in arms for run in arm.runs if run.numerics is None]
    commits = {commit for arm in arms for commit in arm.commits}
    if not runs or (len(commits) == 1 and not any(run.code.dirty or run.code.commit is None for run in runs)):
        return []
    makers = "several commits" if len(commits) > 1 else "a commit with changed files, or none"
    lines = [
        f"**Mixed code.** These runs have no fingerprint of their numerics, and were made by {makers}:"
        f" {_code(commits)}."
    ]
    if mixed := [effect for effect in effects if effect.mixed]:
        lines.append(
            "Where the two runs of a pair are of different ones, a difference may be the code's and not the change's:"
            f" {_code(effect.arm.name for effect in mixed)}."
        )
    else:
        lines.append("No pair of one seed is of two commits, but the spread over seeds may hold what the code changed.")
    if apart := [effect.arm.name for effect in mixed if effect.of_other_code]:
        lines.append(
            f"The curves show that it is so: {_code(apart)} change nothing before late in the run and must share their"
            " first epochs with the baseline to the last digit; they do not. They have no verdict."
        )
    lines.append("To mend it, make the baseline again with today's code, and then the arms:\n")
    return ["\n".join(lines), f"    {remedy}\n"]


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
