"""The YAML files of recipes, setups, ablations and suites: read, checked, and told what is wrong where."""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.errors import UserError
from repro.experiments import folder

T = TypeVar("T")
HEADER = "# @package _global_"
CLAIM = re.compile(r"C([1-9]|1\d|2[0-7])")
KINDS = ("baseline", "remove", "add", "swap", "sweep")
EXPECTED = ("worse", "same", "better")


def load(path: Path) -> dict[str, Any]:
    """The keys of a file. Raises UserError where it cannot be read, is no YAML, or no mapping."""
    tree = _content(path)
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"{_name(path)}: holds no keys: mend or remove it")
    return cast(dict[str, Any], tree)


def load_list(path: Path) -> list[Any]:
    """The items of a file. Raises UserError as `load` does, where it is no list."""
    tree = _content(path)
    if not isinstance(tree, list):
        raise UserError(f"{_name(path)}: holds no list: mend it")
    return tree


def _content(path: Path) -> Any:
    where = _name(path)
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise UserError(f"{where}: line 1: begins with a byte order mark: save it as UTF-8 without one")
        return OmegaConf.to_container(OmegaConf.create(text))
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
    except ValueError as error:  # a whole number of thousands of digits
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    except RecursionError as error:  # an alias within its own anchor, or thousands of brackets
        raise UserError(f"{where}: nested too deep: mend it") from error
    except OmegaConfBaseException as error:  # `activation: ${`
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error


def at(path: Path, key: str) -> str:
    """`ablation/no_lrn.yaml: line 12: model.norm.kind`; without the line where the key is not there."""
    where = _name(path)
    line = dict(_lines(yaml.compose(path.read_text(encoding="utf-8")))).get(key)
    return f"{where}: line {line}: {key}" if line else f"{where}: {key}"


def _name(path: Path) -> str:
    """`ablation/no_lrn.yaml`, and `claims.yaml` for a file that belongs to no group."""
    return path.name if path.parent == folder.EXPERIMENTS else f"{path.parent.name}/{path.name}"


def _lines(node: "yaml.Node | None", prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield f"{prefix}{name.value}", name.start_mark.line + 1
            yield from _lines(value, f"{prefix}{name.value}.")


def read(path: Path, schema: type[T], **given: Any) -> T:
    """A file as a dataclass; `given` are fields that do not stand in it. Raises UserError with file, line and key."""
    return build(path, load(path), schema, **given)


def build(path: Path, tree: Any, schema: type[T], prefix: str = "", **given: Any) -> T:
    """A mapping of a file, found there under the dotted key `prefix`, as a dataclass. Raises UserError as `read`."""
    hints = {name: kind for name, kind in typing.get_type_hints(schema).items() if name not in given}
    if not isinstance(tree, dict):
        raise UserError(f"{at(path, prefix.rstrip('.'))}: {tree!r} holds no keys: there are {', '.join(sorted(hints))}")
    if unknown := sorted(map(str, tree.keys() - hints.keys())):
        close = get_close_matches(unknown[0], hints, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        where = at(path, f"{prefix}{unknown[0]}")
        raise UserError(f"{where}: unknown key: {meant}there are {', '.join(sorted(hints))}")
    needed = {item.name for item in fields(cast(Any, schema)) if MISSING is item.default is item.default_factory}
    if missing := sorted(needed - tree.keys() - given.keys()):
        raise UserError(f"{at(path, prefix.rstrip('.')) if prefix else _name(path)}: has no {missing[0]}")
    values = {key: _value(path, f"{prefix}{key}", hints[key], value) for key, value in tree.items()}
    return schema(**values, **given)


def _value(path: Path, key: str, kind: Any, value: Any) -> Any:
    """A value of a file as its declared type; one alone stands for a list of it."""
    origin = typing.get_origin(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return build(path, value, kind, f"{key}.")
    if origin in (list, tuple):
        item = typing.get_args(kind)[0]
        items = value if isinstance(value, list) else [value]
        return origin(_value(path, key, item, one) for one in items)
    if not _fits(value, kind):
        raise UserError(f"{at(path, key)}: {value!r} is not {_named(kind)}")
    return kind[value] if isinstance(kind, type) and issubclass(kind, Enum) else value


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
    if origin is dict:
        name, item = typing.get_args(kind)
        return isinstance(value, dict) and all(_fits(k, name) and _fits(v, item) for k, v in value.items())
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
    if origin is dict:
        return f"a mapping to {_named(typing.get_args(kind)[1])}"
    if origin in (list, tuple):
        return f"a list of which each is {_named(typing.get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(kind.__members__)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return words.get(kind, str(kind))
