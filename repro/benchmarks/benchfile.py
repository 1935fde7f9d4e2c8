"""`results/benchmarks/<device>.json`: what each part of the benchmark found, when, and with which software."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repro.benchmarks.targets import Row
from repro.environment import Code, Machine, slug
from repro.errors import RunFailure, UserError
from repro.files import replace_file

SCHEMA = 1


@dataclass(frozen=True)
class Part:
    """One part's rows as they were measured together; `table` is that of throughput by batch, empty elsewhere."""

    date: str
    machine: Machine
    code: Code
    note: str
    rows: list[Row]
    table: list[dict[str, Any]]


def path_of(results_dir: Path, device: str) -> Path:
    """Returns where the figures of a device lie, by its model's name."""
    return results_dir / "benchmarks" / f"{slug(device)}.json"


def read(path: Path) -> dict[str, Part]:
    """The parts by name; none where there is no file. UserError where it cannot be read."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        return {name: _part(**fields) for name, fields in content["parts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a file of python -m repro.bench ({error}): delete it and measure again") from None


def merge(path: Path, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Adds parts to the file, replacing those of the same name; returns all. RunFailure where it cannot be written."""
    merged = dict(sorted({**read(path), **parts}.items()))
    plain = {"schema": SCHEMA, "parts": {name: asdict(part) for name, part in merged.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(plain, indent=1) + "\n").encode())
    except OSError as error:
        raise RunFailure(f"{path}: cannot be written ({error.strerror}): choose another results_dir") from error
    return merged


def _part(machine: dict[str, Any], code: dict[str, Any], rows: list[dict[str, Any]], **rest: Any) -> Part:
    return Part(machine=Machine(**machine), code=Code(**code), rows=[Row(**row) for row in rows], **rest)
