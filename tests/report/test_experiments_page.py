import re
from pathlib import Path

import pytest

from repro import record
from repro.config import Config
from repro.evidence.comparison import comparisons
from repro.experiments.compose import compose
from repro.experiments.folder import EXPERIMENTS, choices
from repro.experiments.naming import settings
from repro.experiments.registry import ablations, named_keys
from repro.report import experiments_page as page

RECIPES = ("paper", "source")
NOT_OF_A_RECIPE = {  # a matter of the setup or the user
    "data.source",
    "data.classes",
    "data.format",
    "data.jpeg_quality",
    "data.skip_bad",
    "data.exif",
    "data.transparency",
    "init_from",
}


@pytest.fixture(scope="module")
def index() -> str:
    return page.render(comparisons(record.find(page.RESULTS)))


def yaml_files() -> list[Path]:
    groups = ("recipe", "setup", "setup_recipe", "ablation")
    return sorted(path for group in groups for path in (EXPERIMENTS / group).glob("*.yaml"))


def comments(path: Path) -> dict[str, str]:
    """The trailing comment of each setting in a YAML file: dotted key -> words, empty where there is none."""
    section: list[str] = []
    found = {}
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"( *)(\w+):( [^#]+?)?(?:  # (.*))?", line):
            section[len(match[1]) // 2 :] = [match[2]]
            if match[3]:
                found[".".join(section)] = match[4] or ""
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_holds_every_hyperparameter_with_its_origin(recipe: str) -> None:
    origins = comments(EXPERIMENTS / "recipe" / f"{recipe}.yaml")
    assert origins.pop("recipe") == ""  # its name
    assert origins.keys() == settings(Config()).keys() - NOT_OF_A_RECIPE
    assert [key for key, origin in origins.items() if not origin] == []


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_value_of_every_file_says_why(path: Path) -> None:
    silent = {key for key, comment in comments(path).items() if not comment}
    assert {key for key in silent if not key.startswith("about.")} <= {"recipe", "setup"}


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_is_global_and_fits_the_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert max(map(len, lines)) <= 120


def test_the_defaults_of_the_schema_are_those_of_the_paper() -> None:
    default, paper = settings(Config()), settings(compose(["recipe=paper", "setup=imagefolder"]))
    drops = paper.pop("schedule.drops")  # decimals of 25/91, 51/91, 79/91
    assert default.pop("schedule.drops") == pytest.approx(drops, abs=5e-5)
    assert {key for key in paper if paper[key] != default[key]} == {"data.source", "train.precision"}


def test_the_index_is_fresh(index: str) -> None:
    assert page.README.read_text() == index, "run python -m repro.compare"


def test_the_index_names_every_file_and_every_changed_key(index: str) -> None:
    for group in ("recipe", "setup", "suite", "ablation"):
        for name in choices(group):
            assert f"`{name}`" in index
    for name, about in ablations().items():
        (row,) = (line for line in index.splitlines() if line.startswith(f"| `{name}` | {about.question} |"))
        assert all(f"`{key}=" in row for key in named_keys(name))


def test_tables_are_rectangular(index: str) -> None:
    for table in (block for block in index.split("\n\n") if block.startswith("|")):
        assert len({line.count(" | ") for line in table.strip().splitlines()}) == 1


def test_comments_are_found_by_dotted_key(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("# @package _global_\na:\n  b: 1  # one: two\n  c:  # section\n    d: [x, y]\ne: null  # none\n")
    assert comments(path) == {"a.b": "one: two", "a.c.d": "", "e": "none"}
