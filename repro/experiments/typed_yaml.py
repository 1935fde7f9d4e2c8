"""The YAML files of recipes, setups, ablations and suites: read, checked, and told what is wrong where."""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.errors import UserError

HEADER = "# @package _global_"
CLAIM = re.compile(r"C([1-9]|1\d|2[0-7])")
KINDS = ("baseline", "remove", "add", "swap", "sweep")
EXPECTED = ("worse", "same", "better")


def load(path: Path) -> dict[str, Any]:
    """The keys of a file. Raises UserError where it cannot be read, is no YAML, or no mapping."""
    where = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise UserError(f"{where}: line 1: begins with a byte order mark: save it as UTF-8 without one")
        tree = OmegaConf.to_container(OmegaConf.create(text))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{where}: line {line}: not UTF-8: save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}): mend or remove it") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise UserError(f"{where}: {f'line {mark.line + 1}: ' if mark else ''}{error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:  # `activation: ${`
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"{where}: holds no keys: mend or remove it")
    return cast(dict[str, Any], tree)


def at(path: Path, key: str) -> str:
    """`ablation/no_lrn.yaml: line 12: model.norm.kind`; without the line where the key is not there."""
    where = f"{path.parent.name}/{path.name}"
    line = dict(_lines(yaml.compose(path.read_text(encoding="utf-8")))).get(key)
    return f"{where}: line {line}: {key}" if line else f"{where}: {key}"


def _lines(node: "yaml.Node | None", prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield f"{prefix}{name.value}", name.start_mark.line + 1
            yield from _lines(value, f"{prefix}{name.value}.")


def declared(schema: type, prefix: str = "") -> dict[str, Any]:
    """Every field of a dataclass of dataclasses: dotted key -> declared type."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(schema).items():
        nested = isinstance(kind, type) and is_dataclass(kind)
        found |= declared(kind, f"{prefix}{name}.") if nested else {f"{prefix}{name}": kind}
    return found


def check_types(path: Path, values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raises UserError for the first known key whose value is of another type: `n: '3'` is no number."""
    for key, value in values.items():
        if key in kinds and not _fits(value, kinds[key]):
            raise UserError(f"{at(path, key)}: {value!r} is not {_named(kinds[key])}")


def _fits(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits(item, typing.get_args(kind)[0]) for item in value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, str) and value in kind.__members__
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _named(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_named, typing.get_args(kind)))
    if origin in (list, tuple):
        return f"a list of which each is {_named(typing.get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(kind.__members__)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return words.get(kind, str(kind))
