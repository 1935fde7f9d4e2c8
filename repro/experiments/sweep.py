"""What the runs of a sweep are, in words, before their configurations are read."""

from collections.abc import Iterable, Sequence

from repro.command import own_words
from repro.experiments import suites
from repro.experiments.suites import Words
from repro.text import counted

NAMES_SHOWN = 24
"""Values of one key that the plan of a sweep names."""

MANY = 100
"""Runs from which on reading their configurations takes long enough to say so."""
INDENT = 11  # columns, of what stands below a line that is broken


def first_words(words: Sequence[str]) -> list[str]:
    """Says what a command line asks for, before configurations are read. Raises UserError where it has two suites."""
    rest = own_words(words, suites.OWN_WORDS)[1]
    runs = suites.runs(rest)
    lines = told(name_of(rest), runs)
    if (key := suites.tuned_key(rest)) is not None:
        lines.append(f"  then     all seeds of each arm at its own best {key}")
    return [*lines, *(["  reading their configurations"] if len(runs) >= MANY else [])]


def name_of(words: Sequence[str]) -> str:
    """`suite=headline`, or `sweep` where there is no suite."""
    suite = suites.chosen(words)
    return "sweep" if suite is None else f"suite={suite}"


def told(name: str, runs: Iterable[Words]) -> list[str]:
    """Says how many runs these words are, with a line for each key in which they differ."""
    runs = list(runs)
    lines = [f"{name}: {counted(len(runs), 'run')}"]
    for key, found in values(runs).items():
        if len(found) > 1:
            more = f", and {len(found) - NAMES_SHOWN:,} more" if len(found) > NAMES_SHOWN else ""
            lines.append(f"  {key:<8} {', '.join(found[:NAMES_SHOWN])}{more}")
    return lines


def values(runs: Iterable[Words]) -> dict[str, list[str]]:
    """The different values of each key in the words of these runs, in order."""
    found: dict[str, dict[str, None]] = {}
    for key, _, value in (word.partition("=") for words in runs for word in words):
        found.setdefault(key, {})[value] = None
    return {key: list(different) for key, different in found.items()}
