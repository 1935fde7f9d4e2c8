"""What the README tells a newcomer to type exists."""

import io
import re
import shlex
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from repro import compare
from repro import record as records
from repro.experiments import folder, naming, registry, suites
from repro.experiments.compose import compose
from repro.experiments.folder import choices
from repro.experiments.registry import ablations
from repro.experiments.words import normalise_arguments
from repro.terminal import end
from repro.train import checkpoint
from tests.synthetic import file_record, make_record

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(match[1].partition("#")[0])
    for kind, block in BLOCKS
    if not kind
    for match in re.finditer(r"python -m repro\.(.*)", block)
]


@pytest.mark.parametrize("command", [words for words in COMMANDS if words[0] in ("run", "describe")], ids=" ".join)
def test_every_command_composes(command: list[str]) -> None:
    own = ("-m", "format", "minutes", "at_once")  # no keys of a configuration
    arguments = [word for word in normalise_arguments(command[1:]) if word.partition("=")[0] not in own]
    for word in {word for run in suites.runs(arguments) for word in run}:
        compose([word])


def test_the_first_commands_are_the_promised_ones() -> None:
    assert BLOCKS[0][1].splitlines() == [
        "python -m venv .venv && . .venv/bin/activate && pip install -e .",
        "python -m repro.run ablation=no_lrn",
    ]


def test_the_first_run_ends_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In form: the figures are those of the machine that made them."""
    monkeypatch.chdir(tmp_path)
    folder = file_record(Path("results"), make_record("no_lrn", 0, 24.42, setup="embedded"))
    weights = records.raw_folder("results", "embedded", "paper", "no_lrn", "seed0") / checkpoint.WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.touch()
    shown = end.of_run(records.read(folder), "results")
    console = Console(width=80, file=io.StringIO())
    console.print(shown.table)
    table: str = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [shown.title, *table.splitlines(), *shown.lines]
    form = [re.sub(r"\d+\.\d+ +", "0.00 ", line) for line in lines]
    assert form == [re.sub(r"\d+\.\d+ +", "0.00 ", line) for line in BLOCKS[1][1].splitlines()]


def test_every_setup_is_in_the_table() -> None:
    table = TEXT[TEXT.index("| setup |") :]
    assert [name for name in choices("setup") if f"`{name}`" not in table] == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if "://" not in link and not (README.parent / link).exists()] == []


def test_the_example_ablation_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block for kind, block in BLOCKS if kind == "yaml"]
    assert set(yaml.safe_load(example)) == {"about", "model"}
    copy = tmp_path / "experiments"
    for path in folder.EXPERIMENTS.rglob("*.yaml"):
        place = copy / path.relative_to(folder.EXPERIMENTS)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (copy / "ablation" / "small_window.yaml").write_text(example)
    monkeypatch.setattr(folder, "EXPERIMENTS", copy)
    for cached in (registry.ablations, registry.read_ablation):
        cached.cache_clear()
    try:
        config = compose(["ablation=small_window"])
        assert config.model.norm.n == 3
        assert naming.identify(config, ["small_window"])[0] == "small_window"
        assert "small_window" in ablations()
    finally:
        for cached in (registry.ablations, registry.read_ablation):
            cached.cache_clear()


def test_committed_tables_are_those_of_the_committed_records(capsys: pytest.CaptureFixture[str]) -> None:
    results = README.parent / "results"
    if not (results / "runs").is_dir():
        pytest.skip("no records are committed")
    assert compare.main([f"results_dir={results}", "--check"]) == 0, capsys.readouterr().err
