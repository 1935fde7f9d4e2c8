"""The settings that a run changes, and the name that it is filed under.

Its settings are compared with those of the plain recipe and setup, and the name of an ablation is used only where the
comparison bears it out.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import combinations
from typing import Any

from repro.config import About, Config, Precision
from repro.errors import UserError
from repro.experiments.compose import compose
from repro.experiments.folder import BASELINE
from repro.experiments.keys import flatten, plain
from repro.experiments.registry import ablations, named_keys

LONGEST_LABEL = 100  # characters; a label names a folder

PRECISION = "train.precision"
GIVEN = (
    *("train.epochs", "train.stop_at_train_error", PRECISION, "init_from", "model.scale"),
    *("data.source", "data.classes", "data.image_size", "data.crop", "data.format", "data.jpeg_quality"),
    *("data.minival", "data.skip_bad", "data.exif", "data.transparency"),
)
"""How much is trained, in what arithmetic, from which weights, on which images: by itself never what is compared."""

# Names, places, and ways of computing the same result. Any other setting makes a run another experiment.
_NOT_COMPARED = (
    "recipe",
    "setup",
    "seed",
    "results_dir",
    "force",
    "about",
    "wandb",
    "data.root",
    "data.cache",
    "train.device",
    "train.fast_kernels",
    "train.cuda_graph",
    "train.cudnn_benchmark",
    "train.micro_batch",
    "train.checkpoint_activations",
)


def settings(config: Config) -> dict[str, Any]:
    """Returns what makes a run the experiment that it is: dotted key -> plain value, enums by name."""
    apart = tuple(f"{name}." for name in _NOT_COMPARED)
    return {key: value for key, value in flatten(plain(config)).items() if not f"{key}.".startswith(apart)}


def recorded_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Does as `settings`, of a configuration that a record holds as nested plain values.

    A key that the schema has gained since the run takes its default, which keeps what was; one it lost is left out.
    """
    recorded = flatten(config)
    return {key: recorded.get(key, default) for key, default in _defaults().items()}


@cache
def _defaults() -> dict[str, Any]:
    return settings(Config())


def difference(config: Config, baseline: Config) -> dict[str, tuple[Any, Any]]:
    """Settings in which two configurations differ: dotted key -> (baseline's value, this one's value)."""
    return changed(settings(baseline), settings(config))


def identify(
    config: Config, chosen: Sequence[str] = (), auto: Precision = Precision.auto
) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The name a run is filed under, and its difference from the plain recipe and setup.

    The name follows from the difference alone: the ablations whose every change is in force, joined by `+`, and
    `key=value` for all else; `baseline` where nothing differs. So an ablation spelled out by hand gets its name, and
    one that another key undoes does not. `auto`: what train.precision=auto has become in the configuration.
    Raises UserError where a `chosen` ablation does not apply, or two clash.
    """
    _check_chosen(chosen, config.recipe, config.setup)
    plain = plain_settings(config.recipe, config.setup)
    if leaves_precision_open(config.recipe, config.setup):
        plain = plain | {PRECISION: auto.name}
    difference = changed(plain, settings(config))
    return label({key: value for key, (_, value) in difference.items()}, config.recipe, config.setup), difference


def leaves_precision_open(recipe: str, setup: str) -> bool:
    """Tells whether the precision of a recipe in a setup is what the device has, `train.precision=auto`."""
    return bool(plain_settings(recipe, setup)[PRECISION] == Precision.auto.name)


def label(after: Mapping[str, Any], recipe: str, setup: str) -> str:
    """The name of a run with these changes, dotted key -> value."""
    in_force = _in_force(after, recipe, setup) if after else {}
    extra = [key for key in after if not any(key in keys for keys in in_force.values())]
    return joined(in_force, {key: after[key] for key in extra})


def joined(named: Iterable[str], by_hand: Mapping[str, Any]) -> str:
    """`no_lrn+epochs=3`: ablations and keys set by hand, as a name that a folder can have; `baseline` for none."""
    text = "+".join([*named, *(f"{_shortest(key)}={_text(value)}" for key, value in by_hand.items())])
    return _shorten(text) or BASELINE


def arm(
    difference: Mapping[str, Sequence[Any]], whole: Mapping[str, Any], chosen: Sequence[str] | None = None
) -> tuple[str, set[str]]:
    """Names what is compared of a run, and the keys that its baseline does not have.

    `whole` are all its settings, `chosen` the names after `ablation=`: their keys are compared, and with `baseline`
    none. Where nothing was chosen, None, they are the keys of the ablations that are in force. Where there is none,
    they are the keys set by hand, less those that say how much is trained on what (`GIVEN`). All other keys are the
    baseline's too: a run of one epoch compares with a baseline of one epoch.
    """
    named = _held(difference, whole)
    if chosen is not None:
        names = [name for name in named if name in chosen]
        return "+".join(names) or BASELINE, set().union(*(named[name] for name in names))
    named = _largest(named)
    if named:
        return "+".join(named), set().union(*named.values())
    keys = difference.keys() - set(GIVEN)
    return joined([], {key: pair[1] for key, pair in difference.items() if key in keys}), keys


def arm_against(
    base: Mapping[str, Any], difference: Mapping[str, Sequence[Any]], whole: Mapping[str, Any]
) -> tuple[str, set[str]] | None:
    """The same of a run beside any other, of settings `base`; None where they differ by more or less than an arm.

    An arm is one or several whole ablations or, of a run that has none of them in force, all that was set by hand.
    """
    keys = {key for key, value in whole.items() if base[key] != value}
    named = _largest(_held(difference, whole))
    parts = {name: own for name, own in named.items() if own <= keys}
    if parts and set().union(*parts.values()) == keys:
        return "+".join(parts), keys
    alone = not named and bool(keys) and keys == difference.keys() - set(GIVEN)
    return (joined([], {key: whole[key] for key in difference if key in keys}), keys) if alone else None


def _held(difference: Mapping[str, Sequence[Any]], whole: Mapping[str, Any]) -> dict[str, set[str]]:
    """Ablations that are in force, and which keys of the difference are theirs."""
    named = {name: named_keys(name) for name in ablations()}
    own = {name: keys.keys() & difference.keys() for name, keys in named.items()}
    return {
        name: own[name]
        for name, keys in named.items()
        if own[name] and all(whole.get(key) == value for key, value in keys.items())
    }


def _largest(held: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Keeps those that no other one of them contains."""
    return {name: keys for name, keys in held.items() if not any(keys < other for other in held.values())}


def changes(name: str, recipe: str, setup: str) -> dict[str, Any]:
    """Returns what an ablation changes there: the keys of its file with other values than recipe and setup have."""
    plain = plain_settings(recipe, setup)
    return {key: value for key, value in named_keys(name).items() if plain.get(key) != value}


def _in_force(after: Mapping[str, Any], recipe: str, setup: str) -> dict[str, dict[str, Any]]:
    """Ablations whose changes are all among `after`, less those that another one of them contains."""
    own = {name: changes(name, recipe, setup) for name in ablations()}
    held: dict[str, dict[str, Any]] = {}
    for name, keys in own.items():  # of two that are equal in this place, the registry's gives the name
        if keys and keys.items() <= after.items() and keys not in held.values():
            held[name] = keys
    contained = {name for name, keys in held.items() if any(keys.items() < other.items() for other in held.values())}
    return {name: held[name] for name in sorted(held) if name not in contained}


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings whose values differ: dotted key -> (before, after)."""
    return {key: (before[key], value) for key, value in after.items() if before[key] != value}


@lru_cache
def plain_settings(recipe: str, setup: str) -> dict[str, Any]:
    """Settings of a recipe in a setup, nothing changed."""
    return settings(compose([f"recipe={recipe}", f"setup={setup}"]))


def _check_chosen(chosen: Sequence[str], recipe: str, setup: str) -> None:
    own = {name: changes(name, recipe, setup) for name in chosen if name != BASELINE}
    for name, keys in own.items():
        if not keys or not _listed(ablations()[name], recipe, setup):
            raise UserError(_does_not_apply(name, recipe, setup))
    for first, second in combinations(own, 2):
        for key in own[first].keys() & own[second].keys():
            if own[first][key] != own[second][key]:
                raise UserError(f"ablations {first} and {second} both set {key}: choose one of them")
        for part, whole in ((first, second), (second, first)):
            if own[part].items() <= own[whole].items():
                raise UserError(f"ablation {whole} contains {part}: write ablation={whole}")


def _listed(about: About, recipe: str, setup: str) -> bool:
    net = plain_settings(recipe, setup)["model.net"]
    named = ((recipe, about.recipes), (setup, about.setups), (net, about.nets))
    return all(own in (names or [own]) for own, names in named)


def _does_not_apply(name: str, recipe: str, setup: str) -> str:
    about = ablations()[name]
    listed = {"recipe": about.recipes, "setup": about.setups, "model.net": about.nets}
    where = " and ".join(f"{group}={', '.join(names)}" for group, names in listed.items() if names)
    told = f"ablation={name} changes nothing that is used in recipe={recipe} setup={setup}"
    if where and not _listed(about, recipe, setup):
        return f"{told}; it applies to {where}"
    keys = ", ".join(f"{key}={value}" for key, value in named_keys(name).items())
    return f"{told}, which has {keys} already: leave it out"


def _shortest(key: str) -> str:
    """The end of a dotted key, as long as it takes to tell it from all others: `lr`, `norm.kind`."""
    parts = key.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1)]
    others = [f".{other}" for other in settings(Config()) if other != key]
    return next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)


def _text(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.,+-]", "-", text).lower()


def _shorten(label: str) -> str:
    if len(label) <= LONGEST_LABEL:
        return label
    return f"{label[: LONGEST_LABEL - 9]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
