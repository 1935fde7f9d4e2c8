"""From YAML files and the words of a command line to one checked configuration."""

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro import experiment_files
from repro.command import warn
from repro.config import About, Config, Net
from repro.config_checks import check
from repro.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_SHIPPED = Path(__file__).parent / "_experiments"  # where a wheel puts the YAML files
EXPERIMENTS = _SHIPPED if _SHIPPED.is_dir() else Path(__file__).parents[1] / "experiments"

GROUPS = ("recipe", "setup", "ablation")
DEFAULTS = {"recipe": "paper", "setup": "embedded"}
"""What `experiments/config.yaml` takes where a command names none."""
BASELINE = "baseline"
PATHS = ("results_dir", "init_from", "data.root", "data.cache")
TEXTS = (*PATHS, "train.device", "wandb.project", "wandb.entity")
"""Keys whose values are texts, whatever they look like."""
OPTIONS = ("--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--hydra-help", "--version")
"""Of Hydra's, those that show something of one configuration."""

ConfigStore.instance().store(name="schema", node=Config)


# ---- composition -----------------------------------------------------------------------------------------------------


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that the words of a command line ask for, such as `["ablation=no_lrn", "seed=1"]`.

    Raises UserError, in one line, for anything unknown, of the wrong type or out of range.
    """
    words = readable(overrides)
    _check_words(words, multirun=False, sweeps=False)
    chosen = tuple(word for word in words if word.partition("=")[0] in GROUPS)
    plain_words = [word for word in words if word not in chosen]
    try:
        if all(re.match(r"(?!hydra\b)[a-z][\w.]*=", word) for word in plain_words):
            node = _changed(_by_hydra(EXPERIMENTS, chosen), plain_words)
        else:
            node = _by_hydra(EXPERIMENTS, tuple(words))
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
    for key in sorted(given.keys() - known.keys()):  # `+key=value` gets past the schema
        raise UserError(_unknown_key(key))
    for key in sorted(known.keys() - given.keys()):  # so does `~key`, and leaves the schema's default
        raise UserError(f"{key} cannot be taken away: write {key}=value")
    try:
        config = cast(Config, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:  # data.root=/x/${y}
        raise UserError(explain(error)) from error
    config.results_dir = at_home(config.results_dir)
    check(config)
    return config


def choices(group: str) -> list[str]:
    """Names of the files in `recipe`, `setup`, `ablation` or `suite`."""
    return sorted(path.stem for path in (EXPERIMENTS / group).glob("*.yaml"))


# ---- the words of a command line -------------------------------------------------------------------------------------


def normalise_arguments(argv: Sequence[str]) -> list[str]:
    """The command line of a command that sweeps, as Hydra reads it: `-m` in front, paths quoted, patterns spelled out.

    Raises UserError for an unknown option, recipe, setup or ablation, a key given twice, several values without `-m`,
    and a pattern or range that selects nothing.
    """
    words = [word for word in argv if word not in ("-m", "--multirun")]
    multirun = len(words) < len(argv)
    _check_options(words, multirun)
    words = readable(words, multirun)
    _check_words(words, multirun, sweeps=True)
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
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        raise UserError(f"results_dir={path}: there is no such home folder") from error


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
        if option in ("--resolve", "--package", "-p") and not {"--cfg", "-c"} & set(given):
            raise UserError(f"{option} goes with --cfg job")
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
            raise UserError(f"{word} takes what to show: write {word} job")


def _check_words(words: Sequence[str], multirun: bool, sweeps: bool) -> None:
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
            raise UserError(_unreadable(word))
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
            _check_file(group, name)


def _several(word: str, sweeps: bool) -> str:
    """What to do about several values where one is taken."""
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
                raise UserError(_unknown(f"{group}={name}", close, choices(group)))
            _check_file(group, name)


def _check_file(group: str, name: str) -> None:
    """Raises UserError where a file cannot be used that this name stands for."""
    if group == "ablation":
        _read(name)
        return
    for parent in _keys(group, name).get("defaults", ()):
        if parent in choices(group):
            _check_file(group, parent)
    if group == "setup":
        for path in (EXPERIMENTS / "setup_recipe").glob(f"{name}_*.yaml"):
            _keys("setup_recipe", path.stem)


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


# ---- the ablation files ----------------------------------------------------------------------------------------------


@lru_cache
def ablations() -> dict[str, About]:
    """What each ablation asks, by name, from the files, those of the registry first.

    A file that cannot be used is left out with a warning: only who asks for it needs it.
    """
    found: dict[str, About] = {}
    for name in _in_order():
        try:
            about = About(**_read(name)["about"])
            _check_new(name, found)
        except UserError as error:
            warn(f"{error}; left out")
        else:
            found[name] = about
    return found


def check_files() -> None:
    """Raises UserError for the first ablation file that cannot be used."""
    names = _in_order()
    for number, name in enumerate(names):
        _check_new(name, names[:number])


def _in_order() -> list[str]:
    return sorted(choices("ablation"), key=lambda name: (name not in _registered(), name))


def _check_new(name: str, others: Iterable[str]) -> None:
    """Raises UserError where another file has the same change: runs of one would be filed under the other's name."""
    for other in others:
        if named_keys(other) == named_keys(name):
            raise UserError(f"ablation/{name}.yaml: changes the same as ablation/{other}.yaml: remove one of them")


@lru_cache
def _registered() -> frozenset[str]:
    """Names in the index, which `python -m repro.registry` writes of files that it has checked."""
    index = EXPERIMENTS / "README.md"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    return frozenset(re.findall(r"^\| `(\w+)` \|", text.partition("## Ablations")[2], re.MULTILINE))


def named_keys(name: str) -> dict[str, Any]:
    """The settings that an ablation's file names: dotted key -> value."""
    return flatten({key: value for key, value in _read(name).items() if key != "about"})


@lru_cache
def _read(name: str) -> dict[str, Any]:
    """An ablation's file. Raises UserError, with file, line and key, for what no ablation can be."""
    tree = _keys("ablation", name)
    if not isinstance(tree.get("about"), dict):
        raise UserError(f"ablation/{name}.yaml: has no about: write its question, kind, claims and expects")
    _check_about(EXPERIMENTS / "ablation" / f"{name}.yaml", tree["about"])
    return tree


@lru_cache
def _keys(group: str, name: str) -> dict[str, Any]:
    """What a file sets. Raises UserError, with file, line and key, for what the schema cannot take."""
    path = EXPERIMENTS / group / f"{name}.yaml"
    tree = experiment_files.load(path)
    if not path.read_text(encoding="utf-8").startswith(experiment_files.HEADER):
        raise UserError(f"{group}/{name}.yaml: its first line must be '{experiment_files.HEADER}'")
    values = flatten({key: value for key, value in tree.items() if key != "defaults"})  # Hydra's list of other files
    kinds = experiment_files.declared(Config)
    for key in values.keys() - kinds.keys():
        raise UserError(f"{group}/{name}.yaml: {_unknown_key(key)}")
    experiment_files.check_types(path, values, kinds)
    return tree


def _check_about(path: Path, about: Mapping[str, Any]) -> None:
    known = {
        "kind": experiment_files.KINDS,
        "expects": experiment_files.EXPECTED,
        "recipes": choices("recipe"),
        "setups": choices("setup"),
        "nets": list(Net.__members__),
    }
    for key, names in known.items():
        given = about.get(key, [])
        for value in given if isinstance(given, list) else [given]:
            if value not in names:
                raise UserError(f"{experiment_files.at(path, f'about.{key}')}: {value}: there are {', '.join(names)}")
    for claim in about.get("claims", []):
        if not experiment_files.CLAIM.fullmatch(claim):
            raise UserError(f"{experiment_files.at(path, 'about.claims')}: {claim}: there are C1 to C27")


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
    if key and (reason.startswith("Key '") or "is not a subclass of" in reason):  # the latter: a value for a group
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
    if key in sections:
        inside = [known for known in keys if known.startswith(f"{key}.")]
        return f"{key} is a group of keys: set one of {', '.join(inside)}"
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
