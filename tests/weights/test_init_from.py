"""`init_from=FILE`: what a run starts from, and what its record says about it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from repro import describe
from repro import record as records
from repro.command import exit_code
from repro.experiments import compose
from repro.model import build
from repro.weights import fingerprint
from tests.test_run import interrupt
from tests.tiny import WORDS, content, only_record, run_command

pytestmark = pytest.mark.usefixtures("one_thread")

Start = Callable[..., int]
STILL = "optimizer.lr=1e-30"  # the weights stay as they were


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> records.Record:
    """A finished run."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_command(*WORDS, f"data.root={images}", f"results_dir={folder}", "train.epochs=1", "seed=5") == 0
    return only_record(folder)


@pytest.fixture(scope="module")
def weights(trained: records.Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it left, in a place of its own."""
    (path,) = trained.folder.parents[4].rglob("weights.safetensors")
    return path.rename(tmp_path_factory.mktemp("weights") / "Trained.safetensors")


@pytest.fixture
def start(images: Path, results: Path) -> Start:
    return lambda *words: run_command(*WORDS, f"data.root={images}", f"results_dir={results}", *words)


def test_a_run_starts_from_the_weights_and_its_record_names_them(
    start: Start, results: Path, trained: records.Record, weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (f"init_from={weights}", "train.epochs=1", STILL)
    assert start(*words) == 0
    record = only_record(results)
    assert record.metrics == trained.metrics  # another seed starts elsewhere: `trained` has seed 5
    assert record.config["init_from"] == fingerprint(weights)
    assert record.difference["init_from"] == [None, fingerprint(weights)]
    assert f"init_from={fingerprint(weights).lower().replace('@', '-')}" in record.ablation
    text = (record.folder / "record.json").read_text()
    assert str(weights.parent) not in text
    assert record.command.count("init_from=Trained.safetensors") == 1

    capfd.readouterr()
    assert start(*words) == 0
    assert "done already" in capfd.readouterr().out
    assert only_record(results).finished == record.finished


def test_a_sweep_over_files_of_one_name_makes_a_run_of_each(start: Start, results: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name / "weights.pt" for name in ("first", "second")]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        torch.manual_seed(seed)
        torch.save(build(compose(list(WORDS)), classes=2).state_dict(), path)
    assert start("-m", f"init_from={paths[0]},{paths[1]}", "train.epochs=1") == 0
    found = records.find(results)
    assert {record.config["init_from"] for record in found} == {fingerprint(path) for path in paths}
    assert len({record.config_hash for record in found}) == len({record.ablation for record in found}) == 2
    assert found[0].curve()[0]["train_loss"] != found[1].curve()[0]["train_loss"]


def test_a_run_that_goes_on_takes_its_checkpoint(
    start: Start, results: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"init_from={weights}", "train.epochs=2")
    undo = interrupt(monkeypatch, epoch=1)
    assert start(*words) == 130
    undo()
    assert start(*words) == 0
    resumed = content(only_record(results))
    results.rename(tmp_path / "resumed")
    assert start(*words) == 0
    assert content(only_record(results)) == resumed


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("init_from=nothing.pth", "nothing.pth: cannot be read (No such file or directory)"),
        ("init_from=a/epochs=3/x.pth", "error: a/epochs=3/x.pth: cannot be read (No such file or directory)"),
        ("init_from=a/drops=0.5,0.8/x.pth", "error: a/drops=0.5,0.8/x.pth: cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_not_there(
    word: str, answer: str, start: Start, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start(word) == 2
    assert answer in capfd.readouterr().err
    assert records.find(results) == []


def test_weights_of_another_net_start_nothing(
    start: Start, results: Path, weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start(f"init_from={weights}", "model.sizes.fc7=2048") == 2
    err = capfd.readouterr().err
    assert "layer fc7: weight 256 x 256 in the file, 128 x 256 in the network" in err
    assert err.count("\n") == 1
    assert records.find(results) == []


def test_the_layer_table_needs_no_weights(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [describe.__file__, "init_from=nothing.pth", "format=json"])
    assert exit_code(describe.main) == 0
    assert json.loads(capfd.readouterr().out)["total"]["parameters"] == 60_965_224
