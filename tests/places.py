"""Recipes in setups, and configurations with some keys changed."""

import copy
from enum import Enum
from functools import cache
from itertools import product
from typing import Any

from repro.config import Config
from repro.experiments.compose import compose
from repro.experiments.folder import choices
from repro.experiments.registry import ablations

RECIPES, SETUPS = ("paper", "source"), tuple(choices("setup"))


def places(name: str) -> list[tuple[str, str]]:
    """Recipe and setup of each place that an ablation says it applies to."""
    about = ablations()[name]
    setups = [setup for setup in about.setups or SETUPS if net_of(setup) in (about.nets or [net_of(setup)])]
    return [(recipe, setup) for recipe in about.recipes or RECIPES for setup in setups]


@cache
def net_of(setup: str) -> str:
    return compose([f"setup={setup}"]).model.net.name


def put(config: Config, keys: dict[str, Any]) -> Config:
    """A copy with plain values set by dotted key."""
    config = copy.deepcopy(config)
    for key, value in keys.items():
        *sections, leaf = key.split(".")
        node: Any = config
        for section in sections:
            node = getattr(node, section)
        old = getattr(node, leaf)
        setattr(node, leaf, type(old)[value] if isinstance(old, Enum) else value)
    return config


@cache
def plain_configs() -> dict[tuple[str, str], Config]:
    """Every recipe in every setup, composed once for all tests: a composition takes a tenth of a second."""
    return {place: compose([f"recipe={place[0]}", f"setup={place[1]}"]) for place in product(RECIPES, SETUPS)}
