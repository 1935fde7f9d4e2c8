"""Settings by their dotted keys."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import Enum
from typing import Any

from repro.config import Config

RENAMED = {"train.compile": "train.fast_kernels"}
"""Keys of older versions, which a script may still give."""


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


def unknown_key(key: str) -> str:
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
    if key in RENAMED:
        return f"unknown key {key}: it is {RENAMED[key]} now"
    close = same_leaf if len(same_leaf) == 1 else difflib.get_close_matches(key, keys + sections, 1)
    return unknown(f"key {key}", close, list(dict.fromkeys(name.partition(".")[0] for name in inside)))


def unknown(what: str, close: Sequence[str], there: Sequence[str]) -> str:
    """The end of an error about a name that does not exist: the nearest one, and all that do."""
    suggestion = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what}: {suggestion}there are {', '.join(there)}"
