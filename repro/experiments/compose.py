"""The way from YAML files and the words of a command line to one checked configuration."""

import copy
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.config import Config
from repro.config_checks import check
from repro.errors import UserError
from repro.experiments import folder
from repro.experiments.folder import GROUPS
from repro.experiments.keys import flatten, plain, unknown_key
from repro.experiments.words import at_home, check_words, readable, unreadable

ConfigStore.instance().store(name="schema", node=Config)


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that the words of a command line ask for, such as `["ablation=no_lrn", "seed=1"]`.

    Raises UserError, in one line, for anything unknown, of the wrong type or out of range.
    """
    words = readable(overrides)
    check_words(words, multirun=False, sweeps=False)
    chosen = tuple(word for word in words if word.partition("=")[0] in GROUPS)
    plain_words = [word for word in words if word not in chosen]
    try:
        if all(re.match(r"(?!hydra\b)[a-z][\w.]*=", word) for word in plain_words):
            node = _changed(_by_hydra(folder.EXPERIMENTS, chosen), plain_words)
        else:
            node = _by_hydra(folder.EXPERIMENTS, tuple(words))
    except Exception as error:  # Hydra's errors, OmegaConf's and plain ValueError have no other common base
        raise UserError(explain(error)) from error
    return to_config(node)


@lru_cache(maxsize=256)
def _by_hydra(folder: Path, words: tuple[str, ...]) -> DictConfig:
    """Lets Hydra compose the YAML files; the result is kept, for it takes a tenth of a second."""
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
    for key in sorted(given.keys() - known.keys()):  # `+key=value` gets past the schema
        raise UserError(unknown_key(key))
    for key in sorted(known.keys() - given.keys()):  # so does `~key`, and leaves the schema's default
        raise UserError(f"{key} cannot be taken away: write {key}=value")
    try:
        config = cast(Config, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:  # data.root=/x/${y}
        raise UserError(explain(error)) from error
    config.results_dir = at_home(config.results_dir)
    check(config)
    return config


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf: what is wrong, where, and what exists instead."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    cause = error.__cause__ or error
    file = re.search(r"In '([\w/]+/\w+)': \w+ raised while composing config:\s*", str(error))
    start, reason = (f"{file[1]}.yaml: ", str(cause)[file.end() :]) if file else ("", str(cause))
    key = re.search(r"full_key: (\S+)", reason)
    if file and key and key[1] in GROUPS:
        return f"{start}its first line must be '# @package _global_'"
    if key and (reason.startswith("Key '") or "is not a subclass of" in reason):  # the latter: a value for a group
        return start + unknown_key(key[1])
    if key:
        override = re.search(r"Error merging override (.*)", str(error))
        return f"{start}{override[1] if override else key[1]}: {reason.splitlines()[0]}"
    return " ".join(reason.split())
