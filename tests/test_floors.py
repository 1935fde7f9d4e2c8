"""The floors of the package: a part imports from those below it alone, so imports run one way and in no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import repro

PACKAGE = Path(repro.__file__).parent
FLOORS = (
    {"errors", "files", "stopping", "streams", "text", "threads", "config", "triton_trial", "__version__"},
    {"command", "config_checks", "distributed", "environment", "triton_kernels"},
    {"data", "experiments", "model", "record"},
    {"tracking", "weights", "describe", "prepare"},
    {"train"},
    {"evidence", "profiling", "evaluate", "request"},
    {"benchmarks", "profile", "filing", "listening", "pace"},
    {"run_checks"},
    {"runner"},
    {"bench", "branching", "report"},
    {"compare", "terminal"},
    {"campaign"},
    {"run"},
)
"""Parts of the package, the lowest floor first. Those of one floor know nothing of each other."""
COMMANDS = {"run", "evaluate", "prepare", "describe", "compare", "profile", "bench", "campaign"}
FLOOR = {part: number for number, floor in enumerate(FLOORS) for part in floor}


def imports(path: Path) -> Iterator[str]:
    """The parts of this package that a file imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {id(node) for block in ast.walk(tree) if _is_for_types(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name.split(".")[1] for name in names if name.startswith("repro."))


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_part_has_a_floor() -> None:
    assert {part_of(path) for path in FILES} | {"__version__"} == FLOOR.keys()
    assert FLOOR.keys() >= COMMANDS


@pytest.mark.parametrize("part", sorted(FLOOR.keys() - {"__version__"}))
def test_a_part_imports_from_the_floors_below_it(part: str) -> None:
    for path in FILES:
        if part_of(path) == part:
            upward = {other for other in imports(path) if other != part and FLOOR[other] >= FLOOR[part]}
            assert not upward, f"{path.relative_to(PACKAGE)} imports {sorted(upward)}"


def test_what_computes_knows_nothing_of_how_it_is_shown() -> None:
    shown = {"report", "terminal", "tracking"}
    for part in ("data", "model", "train", "weights", "evidence", "runner", "profiling", "benchmarks"):
        found = {other for path in FILES if part_of(path) == part for other in imports(path)}
        assert not found & shown, part


def test_files_within_a_part_stand_in_no_circle() -> None:
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    graph = {name: set(_modules(path, names)) for name, path in names.items()}
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, sorted(graph)


def _modules(path: Path, names: dict[str, Path]) -> Iterator[str]:
    """The modules that a file imports at its top."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                own = f"{node.module}.{alias.name}"
                places = (own, f"{own}.__init__", node.module, f"{node.module}.__init__")
                yield from [place for place in places if place in names][:1]


def test_the_test_sees_imports() -> None:
    assert {"model", "train"} <= set(imports(PACKAGE / "runner.py"))
