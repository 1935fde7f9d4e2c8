"""Suites, `experiments/suite/*.yaml`: the runs that answer one question together, or a list of such suites."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from repro.command import key_of, warn
from repro.config import Config
from repro.errors import UserError
from repro.experiments import folder, typed_yaml
from repro.experiments.folder import choices
from repro.experiments.keys import flatten, plain
from repro.experiments.words import readable, unreadable

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

OWN_WORDS = {"minutes": "inf", "at_once": "1"}
"""The words beside `suite=` that are no keys of a configuration, with their values where they are not given."""

MINIVAL = 0.1
"""Share of the training images on which the values of a search are judged; no run of the comparison holds them out."""
STOP = "train.stop_at_train_error"
"""Where this is set, values are judged by the epochs to that error instead."""
NEEDED = ("setup", "recipe", "ablation", "seed")
"""What a suite without parts must say, beside its question."""

Words = tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """Every recipe with every ablation and seed, in one setup; or `parts`, each the words of a command of its own."""

    name: str
    question: str
    setup: str = ""
    recipe: tuple[str, ...] = ()
    ablation: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()
    branch_from: str | None = None
    """The ablation, such as `baseline`, from whose checkpoints arms go on that differ from it in late epochs only."""
    parts: tuple[str, ...] = ()
    """Most wanted first, such as `suite=cousins seed=0,1`."""
    given: tuple[str, ...] = ()
    """What all runs have besides, as words of a command line, such as `train.epochs=40`."""
    tune: dict[str, list[float]] = field(default_factory=dict)
    """One key and the values among which each arm gets its own best: found at the first seed, then kept for all."""

    def words(self) -> list[str]:
        """The sweep as words of a command line."""
        lists = {"recipe": self.recipe, "ablation": self.ablation, "seed": self.seed}
        listed = (f"{key}={','.join(map(str, values))}" for key, values in lists.items())
        return [f"setup={self.setup}", *readable(self.given), *listed]


def read(name: str) -> Suite:
    """A suite by its name. Raises UserError for an unknown one, and with file, line and key for what none can be."""
    if name not in choices("suite"):
        raise UserError(f"unknown suite={name}: there are {', '.join(choices('suite'))}")
    path = folder.EXPERIMENTS / "suite" / f"{name}.yaml"
    suite = typed_yaml.read(path, Suite, name=name)
    if not suite.parts and (missing := [key for key in NEEDED if not getattr(suite, key)]):
        raise UserError(f"suite/{name}.yaml: has no {missing[0]}, and no parts")
    _check_names(path, suite)
    _check_parts(path, suite)
    _check_given(path, suite)
    _check_tune(path, suite)
    return suite


def _check_names(path: Path, suite: Suite) -> None:
    ablations = [*suite.ablation, *filter(None, [suite.branch_from])]
    names = {"setup": list(filter(None, [suite.setup])), "recipe": suite.recipe, "ablation": ablations}
    for group, given in names.items():
        for value in given:
            if unknown := set(value.strip("[]").split(",")) - set(choices(group)):
                raise UserError(f"{typed_yaml.at(path, group)}: unknown {group} {sorted(unknown)[0]}")


def _check_parts(path: Path, suite: Suite) -> None:
    """Raises UserError for a part that is no command of a suite or a sweep, and for a circle of suites."""
    where = typed_yaml.at(path, "parts")
    for part in suite.parts:
        try:
            words = shlex.split(part)
        except ValueError as error:
            raise UserError(f"{where}: {part}: {str(error).lower()}") from error
        if own := [word for word in words if key_of(word) in OWN_WORDS]:
            raise UserError(f"{where}: {own[0]} is for the command line")
        name = chosen(words)
        if name == suite.name:
            raise UserError(f"{where}: {part}: a suite cannot be a part of itself")
        if name is not None and name not in choices("suite"):
            raise UserError(f"{where}: unknown suite={name}: there are {', '.join(choices('suite'))}")


def _check_given(path: Path, suite: Suite) -> None:
    """Raises UserError for a word that is no value of one key, and for a key that the suite itself sets or tunes."""
    for word in suite.given:
        key, equals, _ = word.partition("=")
        where = typed_yaml.at(path, "given")
        if not equals or key not in _keys() or key in (*NEEDED, *suite.tune):
            raise UserError(f"{where}: {word}: write key=value, of a key that is none of the suite's own")
        if _parsed(readable([word])[0]).is_sweep_override():
            raise UserError(f"{where}: {word}: all runs have it, so give one value")


def _keys() -> set[str]:
    return set(flatten(plain(Config())))


def _check_tune(path: Path, suite: Suite) -> None:
    """Raises UserError where a search is over no key or several, or has too few values for an optimum inside."""
    if not suite.tune:
        return
    where = typed_yaml.at(path, "tune")
    if len(suite.tune) > 1 or suite.parts:
        raise UserError(f"{where}: one key, in a suite without parts")
    (key,) = suite.tune
    if key not in _keys() or key in NEEDED:
        raise UserError(f"{where}: {key} is no key with numbers to choose from")
    if len(set(next(iter(suite.tune.values())))) < 3:
        raise UserError(f"{where}: give three values at least, so that the best can lie between others")


def usable() -> list[Suite]:
    """Every suite whose file can be used; the others are left out with a warning."""
    found = []
    for name in choices("suite"):
        try:
            found.append(read(name))
        except UserError as error:
            warn(f"{error}; left out")
    return found


def chosen(words: Sequence[str]) -> str | None:
    """The name after `suite=`; None where there is none. Raises UserError where there are two."""
    names = [word.removeprefix("suite=") for word in words if word.startswith("suite=")]
    if len(names) > 1:
        raise UserError("suite= is given twice: give one command for each")
    return names[0] if names else None


def tuned_key(words: Sequence[str]) -> str | None:
    """The key for which a command line's suite seeks each arm's own best value; None where there is none."""
    name = chosen(words)
    tune = read(name).tune if name is not None else {}
    return next((key for key in tune if key not in map(key_of, words)), None)


def expand(words: Sequence[str]) -> list[str]:
    """The words of a command line with `suite=NAME` replaced by its sweep; what else is given goes before it.

    So `suite=cousins seed=0 setup=embedded` is the suite at one seed and in another setup. Raises UserError for an
    unknown suite, and for one of several parts, which is no single sweep.
    """
    name = chosen(words)
    if name is None:
        return list(words)
    suite = read(name)
    if suite.parts:
        commands = "; ".join(f"python -m repro.run {part}" for part in suite.parts)
        raise UserError(f"suite={name} is no single sweep: give its parts one by one: {commands}")
    return ["-m", *_over(suite.words(), [word for word in words if word != f"suite={name}"])]


Search = Mapping[float, Words]
"""A run for each value of the key that is tuned, of one arm at one seed."""
Best = Callable[[Search], float | None]
"""Tells which value of a search is best; None where that is not known, or where there is none."""


def _unknown(_: Search) -> None:
    return None


def runs(words: Sequence[str], within: tuple[str, ...] = (), best: Best = _unknown) -> dict[Words, Words | None]:
    """Words of each run that a command line with `suite=NAME` asks for, most wanted first.

    Beside it stand the words of the run that it may branch from, None where its suite names none. Part by part; within
    one, the first seed of every arm comes before the second of any. Words beside `suite=` go before those of the suite
    and of its parts. `within` names the suites of which it is a part. A suite that tunes a key asks for the search of
    every arm, and for the rest of an arm's runs once `best` knows its value. Raises UserError for an unknown suite, and
    for one that is a part of itself.
    """
    name = chosen(words)
    if name in within:
        raise UserError(f"suite/{name}.yaml: parts: it is a part of itself, by {' and '.join(within)}")
    rest = [word for word in words if word != f"suite={name}"]
    suite = read(name) if name is not None else None
    if suite is None:
        return dict.fromkeys(_combinations(rest))
    if tuned_key(words) is not None:
        return dict.fromkeys(_tuned(suite, _over(suite.words(), rest), best))
    if not suite.parts:
        return {run: _base(run, suite.branch_from) for run in _combinations(_over(suite.words(), rest))}
    found: dict[Words, Words | None] = {}
    for part in suite.parts:
        for run, base in runs(_over(shlex.split(part), rest), (*within, suite.name), best).items():
            found[run] = found.get(run) or base  # the same run may stand in two parts
    return found


def _tuned(suite: Suite, words: Sequence[str], best: Best) -> Iterator[Words]:
    """The search of every arm; then, seed by seed, the runs of all arms whose best value is known."""
    runs = list(_combinations(words))
    chosen = {}
    for run in runs:
        if (arm := _without_seed(run)) not in chosen:  # its first seed
            search = searched(suite, run)
            yield from search.values()
            chosen[arm] = best(search)
    for run in runs:
        if (value := chosen[_without_seed(run)]) is not None:
            yield at(suite, run, value)


def searched(suite: Suite, run: Words) -> dict[float, Words]:
    """The search of an arm, by value: `run` is one of its seeds, in words."""
    (values,) = suite.tune.values()
    held_out = () if STOP in map(key_of, run) else (f"data.minival={MINIVAL}",)
    return {value: at(suite, (*held_out, *run), value) for value in values}


def at(suite: Suite, run: Words, value: float) -> Words:
    """A run at a value of the key that its suite tunes."""
    (key,) = suite.tune
    return (f"{key}={value:g}", *run)


def _without_seed(run: Words) -> Words:
    return tuple(word for word in run if key_of(word) != "seed")


def _base(run: Words, ablation: str | None) -> Words | None:
    """The run that differs from this one by its ablation alone; None where that is this one."""
    if ablation is None:
        return None
    base = tuple(f"ablation={ablation}" if key_of(word) == "ablation" else word for word in run)
    return None if base == run else base


def _over(words: Iterable[str], given: Sequence[str]) -> list[str]:
    """The words, less those whose key is given, and the given ones. UserError for a word that adds or removes a key."""
    for word in given:
        if word.startswith(("+", "~")):
            raise UserError(f"{word}: a suite has every key already: write {word.lstrip('+~')}")
    keys = {key_of(word) for word in given}
    return [*(word for word in words if key_of(word) not in keys), *given]


def _parsed(word: str) -> "Override":
    """A word as Hydra reads it. UserError where it cannot."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except HydraException as error:
        raise UserError(unreadable(word)) from error


def _combinations(words: Sequence[str]) -> Iterator[Words]:
    """One run for each combination of the listed values: the seed changes last, the ablation first."""
    from hydra.errors import HydraException

    slowest_first = {"seed": -2, "setup": -1, "ablation": 1}
    options = {}
    for override in map(_parsed, words):
        options[key_of(str(override.input_line))] = [str(override.input_line)]
        if override.is_sweep_override():
            try:
                values = list(override.sweep_string_iterator())
            except HydraException as error:  # glob(no_*), interval(0, 1)
                raise UserError(f"{override.input_line}: a suite takes lists, as in seed=0,1") from error
            options[key_of(str(override.input_line))] = [f"{override.get_key_element()}={value}" for value in values]
    keys = sorted(options, key=lambda key: slowest_first.get(key, 0))
    for run in product(*(options[key] for key in keys)):
        word = dict(zip(keys, run, strict=True))
        yield tuple(word[key] for key in options)
