"""`init_from=FILE`: what a run starts from, and what its record says about it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import alexnet

from repro import describe, runner
from repro import record as records
from repro.command import exit_code
from repro.data import embedded
from repro.experiments.compose import compose
from repro.model import build
from repro.weights import fingerprint
from repro.weights.geometry import at_their_size
from repro.weights.own import read_origin
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


def test_weights_are_compared_before_images_are_packed(
    start: Start, weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "open_data", lambda _: pytest.fail("images were packed"))
    assert start(f"init_from={weights}", "model.sizes.fc7=2048") == 2
    assert "layer fc7: weight 256 x 256 in the file, 128 x 256 in the network" in capfd.readouterr().err


def test_other_classes_start_from_random_weights(
    start: Start, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Said before images are packed; all other layers are the file's."""
    torch.manual_seed(7)
    theirs = build(compose(list(WORDS)), classes=1000).state_dict()
    torch.save(theirs, tmp_path / "[b]thousand.pt")
    assert start(f"init_from={tmp_path}/[b]thousand.pt", "train.epochs=1", STILL) == 0
    line = "warning: [b]thousand.pt: fc8 has 1000 classes, the images 2: it starts from random weights"
    assert line in " ".join(capfd.readouterr().out.split())
    (path,) = results.rglob("weights.safetensors")
    found = load_file(path)
    assert torch.equal(found["features.conv1.weight"], theirs["features.conv1.weight"])
    assert found["classifier.fc8.weight"].shape == (2, 256)


def test_what_a_run_leaves_says_what_it_is(trained: records.Record, weights: Path, images: Path) -> None:
    origin = read_origin(weights)
    assert origin is not None
    assert origin.record == f"imagefolder/paper/{trained.ablation}/{trained.folder.name}"
    assert origin.classes == ("class_0", "class_1")
    assert {key: origin.config[key] for key in ("model.scale", "data.crop")} == {"model.scale": 0.0625, "data.crop": 64}
    assert origin.statistics["mean"].shape == (72, 72, 3)
    assert str(images).encode() not in weights.read_bytes()


def test_the_place_that_a_run_leaves_its_weights_in_needs_no_quotes(
    start: Start, results: Path, weights: Path, tmp_path: Path
) -> None:
    place = tmp_path / "drops=0.5,0.8 [x]" / "Trained.safetensors"
    place.parent.mkdir()
    shutil.copy(weights, place)
    words = ("train.epochs=1", STILL)
    assert start(f"init_from={place}", *words) == 0
    assert only_record(results).config["init_from"] == fingerprint(weights)
    assert start(f"init_from='{place}'", *words) == 0  # as before


def test_the_readmes_line_starts_from_torchvisions_file_at_its_size(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand classes at full width; the setup has ten at a quarter. Only the budget is smaller here."""
    with torch.device("meta"):
        state = alexnet(weights=None).state_dict()
    torch.save({name: torch.zeros(tensor.shape) for name, tensor in state.items()}, tmp_path / "alexnet.pth")
    monkeypatch.setattr(embedded, "PER_CLASS", {"train": 1, "val": 1})
    monkeypatch.chdir(tmp_path)
    small = (
        "train.epochs=1",
        "train.batch_size=5",
        "train.device=cpu",
        "wandb.mode=disabled",
        f"data.cache={tmp_path}",
    )
    assert run_command("init_from=alexnet.pth", "recipe=torchvision", f"results_dir={results}", *small) == 0
    out, err = capfd.readouterr()
    assert "alexnet.pth holds the full net: model.scale=1 data.image_size=256 data.crop=224 in place of" in err
    assert "alexnet.pth: fc8 has 1000 classes, the images 10: it starts" in " ".join(out.split())
    record = only_record(results)
    assert (record.status, record.setup, record.recipe) == (records.COMPLETE, "embedded", "torchvision")
    assert record.config["model"]["scale"] == 1
    assert record.cost.parameters == 57_044_810  # torchvision's alexnet(num_classes=10)


def test_the_users_own_sizes_are_kept(tmp_path: Path) -> None:
    """And those of a setup that the weights fit, or that fits nothing."""
    config = compose(["recipe=torchvision", "model.scale=0.125"])
    torch.save(build(compose(["recipe=torchvision"]), 10).state_dict(), tmp_path / "small.pth")
    for path in (tmp_path / "small.pth", tmp_path / "nothing.pth"):
        assert at_their_size(path, config, {"model.scale"}) == (config, None)
        assert at_their_size(path, compose(["recipe=torchvision"]), set())[1] is None


def test_the_layer_table_needs_no_weights(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [describe.__file__, "init_from=nothing.pth", "format=json"])
    assert exit_code(describe.main) == 0
    assert json.loads(capfd.readouterr().out)["total"]["parameters"] == 60_965_224
