"""The files of recipes, setups and ablations: what each sets, checked, and what each ablation asks."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from repro.command import warn
from repro.config import About, Config, Net
from repro.errors import UserError
from repro.experiments import folder, typed_yaml
from repro.experiments.folder import choices
from repro.experiments.keys import flatten, unknown_key

OF_A_RUN = {"recipe", "setup", "ablation", "seed", "results_dir", "force", "init_from"}
"""Keys that say which run is made and where: no file sets them, but a recipe and a setup their own names."""


@lru_cache
def ablations() -> dict[str, About]:
    """Reads what each ablation asks, by name, from the files, those of the index first.

    A file that cannot be used is left out with a warning: only who asks for it needs it.
    """
    found: dict[str, About] = {}
    for name in _in_order():
        try:
            about = About(**read_ablation(name)["about"])
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
    """Names in the index, which `python -m repro.compare` writes of files that it has checked."""
    index = folder.EXPERIMENTS / "README.md"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    return frozenset(re.findall(r"^\| `(\w+)` \|", text.partition("## Ablations")[2], re.MULTILINE))


def named_keys(name: str) -> dict[str, Any]:
    """The settings that an ablation's file names: dotted key -> value."""
    return flatten({key: value for key, value in read_ablation(name).items() if key != "about"})


@lru_cache
def read_ablation(name: str) -> dict[str, Any]:
    """An ablation's file. Raises UserError, with file, line and key, for what no ablation can be."""
    tree = read_keys("ablation", name)
    if "defaults" in tree:
        raise UserError(f"ablation/{name}.yaml: takes no defaults: ablation=[one,other] makes both changes")
    if not isinstance(tree.get("about"), dict):
        raise UserError(f"ablation/{name}.yaml: has no about: write its question, kind, claims and expects")
    _check_about(folder.EXPERIMENTS / "ablation" / f"{name}.yaml", tree["about"])
    return tree


def _check_about(path: Path, about: Mapping[str, Any]) -> None:
    known = {
        "kind": typed_yaml.KINDS,
        "expects": typed_yaml.EXPECTED,
        "recipes": choices("recipe"),
        "setups": choices("setup"),
        "nets": list(Net.__members__),
    }
    for key, names in known.items():
        given = about.get(key, [])
        for value in given if isinstance(given, list) else [given]:
            if value not in names:
                raise UserError(f"{typed_yaml.at(path, f'about.{key}')}: {value}: there are {', '.join(names)}")
    for claim in about.get("claims", []):
        if not typed_yaml.CLAIM.fullmatch(claim):
            raise UserError(f"{typed_yaml.at(path, 'about.claims')}: {claim}: there are C1 to C27")


@lru_cache
def read_keys(group: str, name: str) -> dict[str, Any]:
    """Reads what a file sets. Raises UserError, with file, line and key, for what the schema cannot take."""
    path = folder.EXPERIMENTS / group / f"{name}.yaml"
    tree = typed_yaml.load(path)
    if not path.read_text(encoding="utf-8").startswith(typed_yaml.HEADER):
        raise UserError(f"{group}/{name}.yaml: its first line must be '{typed_yaml.HEADER}'")
    values = flatten({key: value for key, value in tree.items() if key != "defaults"})  # Hydra's list of other files
    kinds = typed_yaml.declared(Config)
    for key in values.keys() - kinds.keys():
        raise UserError(f"{group}/{name}.yaml: {unknown_key(key)}")
    for key in sorted(key for key in values if key in OF_A_RUN - {group} or key.startswith("wandb.")):
        raise UserError(f"{typed_yaml.at(path, key)}: is for the command line, or another file's: take it out")
    typed_yaml.check_types(path, values, kinds)
    if values.get(group, name) != name:
        raise UserError(f"{typed_yaml.at(path, group)}: must be {name}, the file's own name")
    return tree


def check_file(group: str, name: str) -> None:
    """Raises UserError where a file cannot be used that this name stands for."""
    if group == "ablation":
        read_ablation(name)
        return
    for parent in read_keys(group, name).get("defaults", ()):
        if parent in choices(group):
            check_file(group, parent)
    if group == "setup":
        for path in (folder.EXPERIMENTS / "setup_recipe").glob(f"{name}_*.yaml"):
            read_keys("setup_recipe", path.stem)
