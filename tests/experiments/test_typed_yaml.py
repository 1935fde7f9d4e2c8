import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.errors import UserError
from repro.experiments import folder, registry, typed_yaml
from repro.terminal.help import text as help_text


@pytest.mark.parametrize(
    "text", ["model: &a {scale: *a}\n", f"model: {'[' * 5000}{']' * 5000}\n"], ids=["circle", "deep"]
)
def test_a_file_nested_without_end_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: nested too deep: mend it"):
        typed_yaml.load(tmp_path / "mine.yaml")


def test_a_number_too_long_to_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"train: {{epochs: {'9' * 5000}}}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: Exceeds the limit"):
        typed_yaml.load(tmp_path / "mine.yaml")


@pytest.fixture
def ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of an ablation of a user's own."""
    shutil.copytree(folder.EXPERIMENTS, tmp_path / "experiments")
    monkeypatch.setattr(folder, "EXPERIMENTS", tmp_path / "experiments")
    for kept in (registry.ablations, registry.read_ablation, registry.read_keys):
        kept.cache_clear()
    yield tmp_path / "experiments" / "ablation" / "mine.yaml"
    for kept in (registry.ablations, registry.read_ablation, registry.read_keys):
        kept.cache_clear()


ABOUT = "# @package _global_\nabout: {question: 'Why?', kind: sweep, claims: [C8], expects: same}\n"


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ("wandb: {mode: online}\n", "line 3: wandb.mode: is for the command line"),
        ("defaults: [no_lrn]\n", "takes no defaults"),
    ],
)
def test_what_no_ablation_sets_is_refused(more: str, answer: str, ablation: Path) -> None:
    ablation.write_text(ABOUT + more)
    with pytest.raises(UserError, match=answer):
        registry.read_ablation("mine")


def test_help_on_a_file_that_is_left_out_says_so(ablation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ablation.write_text(f"{ABOUT}model: {{norm: {{kind: none}}}}\n")
    with pytest.raises(UserError, match="ablation=mine: its file is left out"):
        help_text(["ablation=mine"], None)
    assert "mine.yaml: changes the same as ablation/no_lrn.yaml" in capsys.readouterr().err
