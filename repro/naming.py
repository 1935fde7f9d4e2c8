"""What a run changes, and the name it is filed under.

Its settings are compared with those of the plain recipe and setup, and the name of an ablation is used only where the
comparison bears it out.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from repro.config import About, Config, Precision
from repro.errors import UserError
from repro.experiments import BASELINE, ablations, choices, compose, flatten, named_keys, plain

LONGEST_LABEL = 100  # characters; a label names a folder

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
    "train.compile",
    "train.cuda_graph",
    "train.cudnn_benchmark",
    "train.micro_batch",
    "train.checkpoint_activations",
)


def settings(config: Config) -> dict[str, Any]:
    """What makes a run the experiment that it is: dotted key -> plain value, enums by name."""
    apart = tuple(f"{name}." for name in _NOT_COMPARED)
    return {key: value for key, value in flatten(plain(config)).items() if not f"{key}.".startswith(apart)}


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
    if plain["train.precision"] == Precision.auto.name:
        plain = plain | {"train.precision": auto.name}
    difference = changed(plain, settings(config))
    after = {key: value for key, (_, value) in difference.items()}
    in_force = _in_force(after, config.recipe, config.setup) if after else {}
    extra = [key for key in after if not any(key in keys for keys in in_force.values())]
    label = "+".join([*in_force, *(f"{_shortest(key)}={_text(after[key])}" for key in extra)])
    return _shorten(label) or BASELINE, difference


def changes(name: str, recipe: str, setup: str) -> dict[str, Any]:
    """What an ablation changes there: the keys of its file whose values are not the recipe's and setup's already."""
    plain = plain_settings(recipe, setup)
    return {key: value for key, value in named_keys(name).items() if plain.get(key) != value}


def _in_force(after: dict[str, Any], recipe: str, setup: str) -> dict[str, dict[str, Any]]:
    """Ablations whose changes are all among `after`, less those that another one of them contains."""
    own = {name: changes(name, recipe, setup) for name in choices("ablation")}
    held = {name: keys for name, keys in own.items() if keys and keys.items() <= after.items()}
    contained = {name for name, keys in held.items() if any(keys.items() < other.items() for other in held.values())}
    return {name: keys for name, keys in held.items() if name not in contained}


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
    return f"ablation={name} changes nothing that is used in recipe={recipe} setup={setup}; it applies to {where}"


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
