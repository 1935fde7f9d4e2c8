"""The rules by which comparisons and arms say enough to be shown."""

from repro.command import key_of
from repro.config import Source
from repro.evidence.comparison import Arm, Comparison
from repro.experiments import suites
from repro.experiments.folder import BASELINE

FEWEST = 3
"""Seeds; with fewer, an interval says next to nothing."""
OTHER_IMAGES = (Source.embedded.value, Source.imagefolder.value)
"""Images that the package makes itself, and a user's own."""


def is_shown(part: Comparison) -> bool:
    """Tells whether it compares something in one of the project's setups as it is, with enough seeds."""
    enough = {arm.name for arm in part.arms if has_enough(arm)}
    return is_own(part) and BASELINE in enough and len(enough) > 1


def is_own(part: Comparison) -> bool:
    """Tells whether it is of one of the project's setups as it is, on public images."""
    return part.data.source not in OTHER_IMAGES and not part.given


def is_tuned(part: Comparison) -> bool:
    """Tells whether its runs are of a suite that seeks each arm's own best value of a key: with those keys by hand."""
    keys = [{key_of(word) for word in suite.given} | suite.tune.keys() for suite in suites.usable() if suite.tune]
    return bool(part.given) and any(part.given.keys() <= own for own in keys)


def has_enough(arm: Arm) -> bool:
    """Tells whether so many of its runs are complete that an interval says something."""
    return len(arm.complete) >= FEWEST
