"""Claims answered by conv1's kernels at the end of a run: whether one column sees colour and the other does not.

The paper shows its kernels and gives no measure. Here the chroma of a kernel is the share of its energy that is not
the same in all three colours, and a permutation test asks whether the columns' means lie further apart than those of
any two halves of the same kernels.
"""

from collections.abc import Sequence

import numpy as np

from repro.evidence import stats
from repro.evidence.claims import Check, Claim, Finding, Quantity, Verdict, find_arm
from repro.evidence.comparison import Comparison
from repro.experiments.folder import BASELINE

SHUFFLES = 10_000
LEVEL = 0.05
"""The two-sided p below which a run's columns count as apart."""
FEWEST = 3
"""Seeds; the claim is about every run."""


def chroma(kernels: np.ndarray) -> np.ndarray:
    """Returns for each of (maps, 3, H, W) the share of its energy that is not equal in all three colours, (maps,)."""
    grey = kernels.mean(axis=1, keepdims=True)
    shares: np.ndarray = ((kernels - grey) ** 2).sum(axis=(1, 2, 3)) / (kernels**2).sum(axis=(1, 2, 3))
    return shares


def first_column(maps: int) -> np.ndarray:
    """Tells which of so many maps are the first of two columns', (maps,) bool."""
    return np.arange(maps) < maps // 2


def difference(values: np.ndarray, first: np.ndarray) -> float:
    """Returns how far apart the means of the `first` values and of the others lie."""
    return float(abs(values[first].mean() - values[~first].mean()))


def permutation_p(values: np.ndarray, first: np.ndarray) -> float:
    """Returns the two-sided p of that distance, by shuffles that are the same at every call."""
    shuffled = np.random.default_rng(0).permuted(np.tile(first, (SHUFFLES, 1)), axis=1)
    own, others = (np.where(chosen, values, 0).sum(axis=1) / chosen.sum(axis=1) for chosen in (shuffled, ~shuffled))
    reached = np.abs(own - others) >= difference(values, first) - 1e-12
    return float((reached.sum() + 1) / (SHUFFLES + 1))


def colour_of_columns(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C22: holds where the columns' chroma lies apart in every one of three runs or more."""
    found = []
    for part in parts:
        runs = find_arm(part, BASELINE).learned
        chromas = {
            seed: chroma(kernels.astype(float)) for seed, run in runs.items() if (kernels := run.kernels()) is not None
        }
        if not chromas or part.base["model.columns"] != 2:
            continue
        apart = {seed: difference(values, first_column(len(values))) for seed, values in chromas.items()}
        ps = {seed: permutation_p(values, first_column(len(values))) for seed, values in chromas.items()}
        below = sum(p < LEVEL for p in ps.values())
        holds = below == len(ps) >= FEWEST
        words = f"p < {LEVEL:g} in {below} of {len(ps)} runs (permutation test on the kernels of each)"
        found.append(
            Finding(
                Verdict.holds if holds else Verdict.not_distinguishable,
                measure="chroma of conv1's kernels, one column's mean from the other's",
                n=len(ps),
                beside=(Quantity("apart by", stats.mean(apart)),),
                words=(words,),
                part=part,
                records=(BASELINE,),
            )
        )
    return found


CHECKS: dict[str, Check] = {colour_of_columns.__name__: colour_of_columns}
