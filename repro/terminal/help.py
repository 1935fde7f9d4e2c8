"""`--help` of `repro.run`: what there is to choose, each with its question, and all about one ablation."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from repro.config import Config
from repro.errors import UserError
from repro.evidence.claims import load
from repro.evidence.comparison import MAIN, Comparison, comparisons, plain_text
from repro.evidence.published import published
from repro.experiments import naming, suites, sweep
from repro.experiments.compose import compose
from repro.experiments.folder import BASELINE, GROUPS, choices
from repro.experiments.keys import flatten, plain
from repro.experiments.registry import ablations, named_keys
from repro.experiments.words import chosen_ablations
from repro.record import find
from repro.report import experiments_page
from repro.report.markdown import interval
from repro.text import counted, wrapped

TOPICS = ("ablations", "recipes", "setups", "suites", "claims")
MOST_LABEL = 24  # columns, of names; a longer one pushes its own line


def text(words: Sequence[str], width: int | None) -> str | None:
    """Explains these words in lines of so many columns (None: each line whole); None where they ask nothing special.

    Raises UserError where a topic, an ablation or a suite is unknown.
    """
    for word in words:
        key, equals, _ = word.partition("=")
        if word not in TOPICS and (not equals or (key not in GROUPS and key != "suite" and key not in _settings())):
            raise UserError(f"no help on {word}: {_advice(key)}")
    topics = [word for word in words if word in TOPICS]
    if topics and len(topics) < len(words):
        others = " ".join(word for word in words if word not in TOPICS)
        raise UserError(f"--help {' '.join(topics)} lists all there are: leave out {others}")
    if topics:
        return "\n\n".join(_laid_out(listed(topic).items(), width) for topic in topics)
    if (suite := suites.chosen(words)) is not None:
        return _laid_out(_runs_of(suite, words), width)
    if any(word.startswith("ablation=") for word in words):
        return _laid_out(explained(words), width)
    named = [tuple(word.split("=", 1)) for word in words if word.startswith(("recipe=", "setup="))]
    if named:
        compose(words)  # says what is wrong with them
        return _laid_out(((name, experiments_page.comment(group, name)) for group, name in named), width)
    return None


def _settings() -> set[str]:
    """Every key of a configuration."""
    return set(flatten(plain(Config())))


def _advice(word: str) -> str:
    """Says what to write in place of a word that is no topic."""
    for group in (*GROUPS, "suite"):
        if word in choices(group):
            return f"write --help {group}={word}"
    close = difflib.get_close_matches(word, TOPICS, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}there is --help {', '.join(TOPICS)}, and ablation=NAME, recipe=, setup= or suite="


def _runs_of(suite: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Tells what a suite asks, and in what its runs differ."""
    yield suite, suites.read(suite).question
    runs = suites.runs(words)
    yield "runs", f"{len(runs):,}"
    yield from ((key, ", ".join(values)) for key, values in sweep.values(runs).items())


def _laid_out(lines: Iterable[tuple[str, str]], width: int | None) -> str:
    """Two columns; a name that repeats is given once."""
    lines = list(lines)
    label = min(MOST_LABEL, max(len(name) for name, _ in lines)) + 2
    shown, last = [], ""
    for name, words in lines:
        line = f"{'' if name == last else name:<{label - 2}}  {' '.join(words.split())}"
        shown.append(line if width is None else wrapped(line, width, label))
        last = name
    return "\n".join(shown)


def listed(topic: str) -> dict[str, str]:
    """Names of one kind, each with what it asks or is."""
    if topic == "ablations":
        return {name: about.question for name, about in ablations().items()}
    if topic == "suites":
        return {suite.name: suite.question for suite in suites.usable()}
    if topic == "claims":
        return {name: f"{claim.statement} ({claim.section})" for name, claim in load().items()}
    group = topic.removesuffix("s")
    return {name: experiments_page.comment(group, name) for name in choices(group)}


def explained(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Lines about the ablations that these words of a command line name, in its recipe and setup."""
    config = compose(words)
    names = [name for name in chosen_ablations(words) if name != BASELINE] or [BASELINE]
    plain = naming.plain_settings(config.recipe, config.setup)
    for name in names:
        if name not in ablations():
            raise UserError(f"ablation={name}: its file is left out, as the warning says: mend it first")
        about = ablations()[name]
        yield name, about.question
        if name != BASELINE:
            yield "kind", about.kind
            yield "expects", "the baseline's error" if about.expects == "same" else f"{about.expects} than the baseline"
        yield from (("claim", f"{claim}: {load()[claim].statement}") for claim in about.claims)
        yield "in", f"recipe {config.recipe}, setup {config.setup}"
        try:
            naming.identify(config, [name])
        except UserError as error:
            yield "but", str(error)
        yield from _changes(name, config.recipe, config.setup, plain)
        yield from (("published", f"{row}: {row.source}") for row in published() if row.ablation == name)
        yield from (("here", text) for text in _recorded(name, config.results_dir))


def _changes(name: str, recipe: str, setup: str, plain: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    changes = naming.changes(name, recipe, setup)
    for key, value in changes.items():
        yield "changes", f"{key}: {plain_text(plain[key])} -> {plain_text(value)}"
    if not changes:
        yield "changes", "nothing" if not named_keys(name) else "nothing there: choose another recipe or setup"


def _recorded(name: str, results_dir: str) -> Iterator[str]:
    """The effects that the records in the results folder show, one for each comparison."""
    try:
        parts = comparisons(find(results_dir))
    except UserError as error:  # a damaged record is no reason to explain nothing
        yield f"no effect can be told: {error}"
        return
    found = [text for part in parts for text in _effect(name, part)]
    yield from found or [f"no record in {results_dir} tells its effect"]


def _effect(name: str, part: Comparison) -> Iterator[str]:
    place = f"{part.setup}, recipe {part.recipe}, {part.device_type}"
    given = "".join(f", {key}={plain_text(value)}" for key, value in part.given.items())
    arm = next((arm for arm in part.arms if arm.name == name), None)
    if name == BASELINE and arm is not None and arm.learned:
        yield f"{counted(len(arm.learned), 'run')} ({place}{given})"
    elif name in part.effects:
        effect = part.effects[name]
        difference = effect.differences[MAIN]
        size = f"{interval(difference, '+')} pp, " if difference.n and not effect.of_other_code else ""
        yield f"{size}{effect.verdict} ({place}{given})"
