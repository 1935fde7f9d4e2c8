"""Which part of the package may import which: arrows lead down, and nothing that computes knows how it is shown."""

import ast
from pathlib import Path

import repro

PACKAGE = Path(repro.__file__).parent
BELOW = {
    "model": {"data", "train", "weights", "record", "runner", "report", "speed", "profiling", "tracking"},
    "data": {"model", "train", "weights", "record", "runner", "report", "speed", "profiling", "tracking"},
    "train": {"record", "runner", "report", "speed", "profiling", "tracking"},
    "weights": {"data", "train", "record", "runner", "report", "speed", "profiling", "tracking"},
    "profiling": {"record", "runner", "report", "speed", "tracking"},
}
"""Each part, and what it must not import."""


def imported(path: Path) -> set[str]:
    """The parts of this package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("repro.")}
    return found


def test_no_part_imports_what_stands_on_it() -> None:
    for part, above in BELOW.items():
        files = list((PACKAGE / part).glob("*.py"))
        assert files
        upward = {path.name: sorted(imported(path) & above) for path in files if imported(path) & above}
        assert not upward, part


def test_the_test_sees_imports() -> None:
    assert "model" in imported(PACKAGE / "runner.py")
