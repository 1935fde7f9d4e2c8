"""From YAML files and the words of a command line to one checked configuration."""

import copy
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.config import About, Config
from repro.config_checks import check
from repro.errors import UserError

_SHIPPED = Path(__file__).parent / "_experiments"  # where a wheel puts the YAML files
EXPERIMENTS = _SHIPPED if _SHIPPED.is_dir() else Path(__file__).parents[1] / "experiments"

GROUPS = ("recipe", "setup", "ablation")
BASELINE = "baseline"

ConfigStore.instance().store(name="schema", node=Config)


# ---- composition -----------------------------------------------------------------------------------------------------


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that the words of a command line ask for, such as `["ablation=no_lrn", "seed=1"]`.

    Raises UserError, in one line, for anything unknown, of the wrong type or out of range.
    """
    _check_words(overrides, multirun=False)
    chosen = tuple(word for word in overrides if word.partition("=")[0] in GROUPS)
    plain_words = [word for word in overrides if word not in chosen]
    try:
        if all(re.match(r"(?!hydra\b)[a-z][\w.]*=", word) for word in plain_words):
            node = _changed(_by_hydra(EXPERIMENTS, chosen), plain_words)
        else:
            node = _by_hydra(EXPERIMENTS, tuple(overrides))
    except Exception as error:  # Hydra's errors, OmegaConf's and plain ValueError have no other common base
        raise UserError(explain(error)) from error
    return to_config(node)


@lru_cache(maxsize=256)
def _by_hydra(folder: Path, words: tuple[str, ...]) -> DictConfig:
    """What Hydra composes from the YAML files; kept, for it takes a tenth of a second."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance()
    outer = hydra.hydra  # a run composes its baseline inside @hydra.main, and Hydra knows one composition at a time
    hydra.clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            return hydra_compose("config", list(words))
    finally:
        hydra.hydra = outer


def _changed(node: DictConfig, words: Sequence[str]) -> DictConfig:
    """A copy with `key=value` words over it, as Hydra would put them there."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import ConfigCompositionException

    node = copy.deepcopy(node)
    for override in OverridesParser.create().parse_overrides(list(words)):
        try:
            OmegaConf.update(node, override.key_or_group, override.value())
        except OmegaConfBaseException as error:
            raise ConfigCompositionException(f"Error merging override {override.input_line}") from error
    return node


def to_config(node: DictConfig) -> Config:
    """The typed and checked configuration; raises UserError for a key that was added or taken away."""
    known = flatten(plain(Config()))
    given = flatten(OmegaConf.to_container(node, enum_to_str=True))
    try:
        OmegaConf.resolve(node)
    except OmegaConfBaseException as error:  # data.root=/x/${y}
        raise UserError(explain(error)) from error
    for key in sorted(given.keys() - known.keys()):  # `+key=value` gets past the schema
        raise UserError(_unknown_key(key))
    for key in sorted(known.keys() - given.keys()):  # so does `~key`, and leaves the schema's default
        raise UserError(f"{key} cannot be taken away: write {key}=value")
    config = cast(Config, OmegaConf.to_object(node))
    check(config)
    return config


def choices(group: str) -> list[str]:
    """Names of the files in `recipe`, `setup`, `ablation` or `suite`."""
    return sorted(path.stem for path in (EXPERIMENTS / group).glob("*.yaml"))


# ---- the words of a command line -------------------------------------------------------------------------------------


def normalise_arguments(argv: Sequence[str]) -> list[str]:
    """The command line with `-m` in front, where Hydra wants it.

    Raises UserError for an unknown recipe, setup or ablation, a key given twice, and several values without `-m`.
    """
    words = [word for word in argv if word not in ("-m", "--multirun")]
    multirun = len(words) < len(argv)
    words = [_quoted_path(word, multirun) for word in words]
    _check_words(words, multirun)
    return ["-m", *words] if multirun else words


def _quoted_path(word: str, multirun: bool) -> str:
    """`init_from=PATH` as Hydra reads it: a run may leave it in a folder called `lr=0.02` or `drops=0.5,0.8`."""
    key, _, value = word.partition("=")
    if key != "init_from" or not re.search(r"[=,\s\[\](){}:]", value) or re.search(r"""["']""", value):
        return word
    paths = value.split(",") if multirun else [value]
    return f"{key}=" + ",".join(f"'{path}'" for path in paths)


def chosen_ablations(overrides: Iterable[str]) -> list[str]:
    """The names after `ablation=`, one or a list; Hydra itself keeps no record of a list."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [word for word in overrides if word.startswith("ablation=")]
    values = [override.value() for override in OverridesParser.create().parse_overrides(words)]
    return [str(name) for value in values for name in (value if isinstance(value, list) else [value])]


def _check_words(words: Sequence[str], multirun: bool) -> None:
    """Raises UserError for words that Hydra would take in silence, or explain over many lines."""
    given: dict[str, str] = {}
    for word in words:
        left, _, value = word.partition("=")
        key = left.lstrip("+~")
        prefix = left.removesuffix(key)
        if not key:
            raise UserError(_unreadable(word))
        if key in GROUPS and prefix:  # Hydra would take `~ablation` for the baseline
            raise UserError(f"{prefix}{key}: write {key}=name, without {prefix}")
        if key in given:  # Hydra would take the last
            together = f": write {key}=[{given[key]},{value}] for all in one run" if key == "ablation" else ""
            raise UserError(f"{key}= is given twice{together}")
        if not word.startswith("-") and left != word:
            given[key] = value
        if key in GROUPS:
            _check_names(key, value)
        if not multirun and _is_sweep(word):
            together = f", or write {key}=[{value}] for all in one run" if key == "ablation" else ""
            raise UserError(f"{word} names several values: put -m in front for one run each{together}")


def _check_names(group: str, value: str) -> None:
    if "(" in value:  # glob(no_*): Hydra expands it
        return
    for name in (part.strip(" '\"") for part in re.split(r"[\[\],]+", value.strip("[]"))):
        if name not in choices(group):
            close = difflib.get_close_matches(name, choices(group), 1)
            raise UserError(_unknown(f"{group}={name}", close, choices(group)))


def _is_sweep(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return not word.startswith("-") and OverridesParser.create().parse_overrides([word])[0].is_sweep_override()
    except OverrideParseException:
        return False  # composition says what is wrong with it


# ---- the ablation files ----------------------------------------------------------------------------------------------


@lru_cache
def ablations() -> dict[str, About]:
    """What each ablation asks, by name, from the files."""
    return {name: About(**_read(name)["about"]) for name in choices("ablation")}


def named_keys(name: str) -> dict[str, Any]:
    """The settings that an ablation's file names: dotted key -> value."""
    return flatten({key: value for key, value in _read(name).items() if key != "about"})


@lru_cache
def _read(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(EXPERIMENTS / "ablation" / f"{name}.yaml")))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one: dotted key -> leaf; a list is a leaf."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def plain(config: Config) -> dict[str, Any]:
    """A configuration as nested mappings of plain values, enums by name."""

    def name_enums(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value.name if isinstance(value, Enum) else value for key, value in pairs}

    return asdict(config, dict_factory=name_enums)


# ---- errors in one line ----------------------------------------------------------------------------------------------


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf: what is wrong, where, and what exists instead."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    cause = error.__cause__ or error
    file = re.search(r"In '([\w/]+/\w+)': \w+ raised while composing config:\s*", str(error))
    start, reason = (f"{file[1]}.yaml: ", str(cause)[file.end() :]) if file else ("", str(cause))
    key = re.search(r"full_key: (\S+)", reason)
    if file and key and key[1] in GROUPS:
        return f"{start}its first line must be '# @package _global_'"
    if key and reason.startswith("Key '"):
        return start + _unknown_key(key[1])
    if key:
        override = re.search(r"Error merging override (.*)", str(error))
        return f"{start}{override[1] if override else key[1]}: {reason.splitlines()[0]}"
    return " ".join(reason.split())


def _unknown_key(key: str) -> str:
    """Names the nearest key, and what the deepest section on the way to the unknown one holds."""
    keys = ["ablation", *flatten(plain(Config()))]
    sections = [known.rpartition(".")[0] for known in keys]
    section, _, leaf = key.rpartition(".")
    while section and section not in sections:
        section = section.rpartition(".")[0]
    inside = [known.removeprefix(f"{section}.") for known in keys if not section or known.startswith(f"{section}.")]
    same_leaf = [known for known in keys if known.endswith(f".{leaf}")]
    close = same_leaf if len(same_leaf) == 1 else difflib.get_close_matches(key, keys + sections, 1)
    return _unknown(f"key {key}", close, list(dict.fromkeys(name.partition(".")[0] for name in inside)))


def _unreadable(word: str) -> str:
    key, _, value = word.partition("=")
    if "=" in value:  # such as the path of what a run left
        return f"cannot read '{word}': quote the value, as in \"{key}='{value}'\""
    return f"cannot read '{word}': write key=value, as in ablation=no_lrn or optimizer.lr=0.02"


def _unknown(what: str, close: Sequence[str], there: Sequence[str]) -> str:
    suggestion = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what}: {suggestion}there are {', '.join(there)}"
