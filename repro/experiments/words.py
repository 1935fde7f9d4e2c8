"""The words of a command line: read as Hydra reads them, and checked before it does."""

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from repro.command import expanded
from repro.errors import UserError
from repro.experiments.folder import DEFAULTS, GROUPS, choices
from repro.experiments.keys import unknown
from repro.experiments.registry import check_file

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

PATHS = ("results_dir", "init_from", "data.root", "data.cache")
TEXTS = (*PATHS, "train.device", "wandb.project", "wandb.entity")
"""Keys whose values are texts, whatever they look like."""
OPTIONS = ("--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--hydra-help", "--version")
"""Of Hydra's, those that show something of one configuration."""
SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version")
"""Those of them of which Hydra takes one."""


def normalise_arguments(argv: Sequence[str]) -> list[str]:
    """The command line of a command that sweeps, as Hydra reads it: `-m` in front, paths quoted, patterns spelled out.

    Raises UserError for an unknown option, recipe, setup or ablation, a key given twice, several values without `-m`,
    and a pattern or range that selects nothing.
    """
    words = [word for word in argv if word not in ("-m", "--multirun")]
    multirun = len(words) < len(argv)
    _check_options(words, multirun)
    words = readable(words, multirun)
    check_words(words, multirun, sweeps=True)
    return ["-m", *words] if multirun else words


def readable(words: Sequence[str], multirun: bool = False) -> list[str]:
    """The words with what only Hydra would read in another way in quotes, and with patterns' matches in their place.

    Raises UserError for a pattern that matches nothing, and for a home folder that nobody has.
    """
    return [_quoted_text(_matched(word), multirun) for word in words]


def quoted(text: str) -> str:
    """A text as Hydra reads it, whatever it holds: only before a quote, or at the end, a backslash counts."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + (found[2] and "\\'"), text) + "'"


def _quoted_text(word: str, multirun: bool) -> str:
    """`data.root=/my images/(1)` or `init_from=lr=0.02/weights.safetensors` with its value in quotes."""
    key, _, value = word.partition("=")
    name = key.lstrip("+")
    if name not in TEXTS or not value or re.fullmatch(r"(choice|shuffle|sort|range|glob|interval)\(.*\)", value):
        return word
    if multirun and not (name in PATHS and Path(value).exists()):
        texts = re.split(r""",(?=(?:[^'"]|'[^']*'|"[^"]*")*$)""", value)
    elif "," in value and name not in PATHS:
        return word  # several values, which the user is told
    else:
        texts = [value]
    return f"{key}={','.join(_as_text(name, text) for text in texts)}"


def _as_text(name: str, text: str) -> str:
    if text == "null" or re.fullmatch(r"""'.*'|".*\"""", text):
        return text
    if name == "results_dir":  # the others are expanded where they are read; here Hydra itself makes a folder
        text = at_home(text)
    override = _parsed(f"{name}={text}")
    same = override is not None and not override.is_sweep_override() and override.value() == text
    return text if same else quoted(text)


def at_home(path: str) -> str:
    """A results folder, where `~` is the user's home. UserError where there is none of that name."""
    return str(expanded(path, "results_dir")) if path.startswith("~") else path


def is_pattern(word: str) -> bool:
    """Tells whether a word asks for values that only Hydra finds; names of files are found here, see `readable`."""
    key, _, value = word.partition("=")
    return value.startswith("interval(") or (value.startswith("glob(") and key not in GROUPS)


def _matched(word: str) -> str:
    """`ablation=glob(no_*)` with the names that it matches."""
    from hydra.core.override_parser.types import Glob

    key, _, value = word.partition("=")
    override = _parsed(word) if key in GROUPS and value.startswith("glob(") else None
    found: object = override.value() if override else None
    if not isinstance(found, Glob):
        return word
    names = found.filter(choices(key))
    if not names:
        raise UserError(f"{word} matches none: there are {', '.join(choices(key))}")
    return f"{key}={','.join(names)}"


def _parsed(word: str) -> "Override | None":
    """A word as Hydra reads it; None where it cannot, which composition explains."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except OverrideParseException:
        return None


def chosen_ablations(overrides: Iterable[str]) -> list[str]:
    """The names after `ablation=`, one or a list; Hydra itself keeps no record of a list."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [word for word in overrides if word.startswith("ablation=")]
    values = [override.value() for override in OverridesParser.create().parse_overrides(words)]
    return [str(name) for value in values for name in (value if isinstance(value, list) else [value])]


def _check_options(words: Sequence[str], multirun: bool) -> None:
    """Raises UserError for options that Hydra would answer with a page, a traceback or another configuration."""
    given = [word.partition("=")[0] for word in words if word.startswith("-")]
    for option in given:
        if option not in OPTIONS:
            raise UserError(f"{option}: no option here: there are -m, --help and {', '.join(OPTIONS)}")
        if multirun:
            raise UserError(f"{option} is for one configuration: leave -m and suite= out")
        if len(shown := [other for other in given if other in SHOWING]) > 1:
            raise UserError(f"{' and '.join(shown)}: give one of them")
        if option in ("--resolve", "--package", "-p") and not {"--cfg", "-c"} & set(given):
            raise UserError(f"{option} goes with --cfg job")
    for word, value in zip_longest(words, words[1:], fillvalue=""):
        if word in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
            raise UserError(f"{word} takes what to show: write {word} job")


def check_words(words: Sequence[str], multirun: bool, sweeps: bool) -> None:
    """Raises UserError for words that Hydra would take in silence, or explain over many lines.

    `sweeps`: whether the command takes several values, with `-m`.
    """
    given: dict[str, str] = {}
    for word in words:
        left, _, value = word.partition("=")
        key = left.lstrip("+~")
        prefix = left.removesuffix(key)
        if not sweeps and word.startswith("-"):
            raise UserError(f"{word}: this command has no such option; write key=value, or --help")
        if not re.match(r"[\w-]", key):
            raise UserError(unreadable(word))
        if key in GROUPS and prefix:  # Hydra would take `~ablation` for the baseline
            raise UserError(f"{prefix}{key}: write {key}=name, without {prefix}")
        if key in given:  # Hydra would take the last
            together = f": write {key}=[{given[key]},{value}] for all in one run" if key == "ablation" else ""
            raise UserError(f"{key}= is given twice{together}")
        if not word.startswith("-") and left != word:
            given[key] = value
        values = _swept(word)
        if key in GROUPS:
            _check_names(key, [value] if values is None else values)
        if not multirun and values is not None:
            raise UserError(_several(word, sweeps))
    for group, name in DEFAULTS.items():
        if group not in given:
            check_file(group, name)


def _several(word: str, sweeps: bool) -> str:
    """Says what to do about several values where one is taken."""
    key, _, value = word.partition("=")
    remedy = "put -m in front for one run each" if sweeps else "give one"
    listed = key == "ablation" and "(" not in value
    return f"{word} names several values: {remedy}{f', or write {key}=[{value}] for all in one run' if listed else ''}"


def _check_names(group: str, values: Sequence[str]) -> None:
    for value in values:
        if value.startswith("[") and group != "ablation":
            raise UserError(f"{group}={value}: a run has one {group}: give one name")
        for name in (part.strip(" '\"") for part in re.split(r"[\[\],]+", value.strip("[]"))):
            if name not in choices(group):
                close = difflib.get_close_matches(name, choices(group), 1)
                raise UserError(unknown(f"{group}={name}", close, choices(group)))
            check_file(group, name)


def _swept(word: str) -> list[str] | None:
    """The values of a word that names several; None for one. Raises UserError where they are none, or endless."""
    from hydra.errors import HydraException

    override = None if word.startswith("-") else _parsed(word)
    if override is None or not override.is_sweep_override():
        return None
    try:
        values = list(override.sweep_string_iterator())
    except HydraException as error:  # interval(0,1); glob(*) of what has no files
        raise UserError(f"{word}: write a list, as in seed=0,1,2, or a range(0,3)") from error
    if not values:
        raise UserError(f"{word} selects nothing: it would make no run")
    return values


def unreadable(word: str) -> str:
    """Says what to do about a word that Hydra cannot read."""
    key, _, value = word.partition("=")
    if "=" in value:  # such as the path of what a run left
        return f"cannot read '{word}': quote the value, as in \"{key}='{value}'\""
    return f"cannot read '{word}': write key=value, as in ablation=no_lrn or optimizer.lr=0.02"
