import json
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from repro import evaluate
from repro import record as records
from repro.command import exit_code
from repro.data import embedded, sources, store
from repro.weights import fingerprint
from tests.tiny import SIZE, only_record, run_command
from tests.weights import protobuf

pytestmark = pytest.mark.usefixtures("one_thread")

Answer = tuple[int, str, str]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A toy net on a few of the embedded images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "PER_CLASS", {"train": 4, "val": 3})
        cache = tmp_path_factory.mktemp("embedded")
        small = [f"data.cache={cache}", f"data.image_size={SIZE}", "data.crop=64", "model.scale=0.0625"]
        yield ["recipe=source", "train.batch_size=16", "train.device=cpu", *small]


@pytest.fixture(scope="module")
def trained(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> records.Record:
    """The record of a run, whose weights lie beside it."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_command(*words, "train.epochs=1", "wandb.mode=disabled", f"results_dir={folder}") == 0
    record = only_record(folder)
    (path,) = folder.rglob("weights.safetensors")
    shutil.copy(path, folder / "[b] weights.safetensors")
    return record


@pytest.fixture(scope="module")
def weights(trained: records.Record) -> Path:
    return trained.folder.parents[4] / "[b] weights.safetensors"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with these words; returns exit code, stdout and stderr."""

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", [evaluate.__file__, *words])
        return exit_code(evaluate.main), *capfd.readouterr()

    return run


def test_the_weights_of_a_run_have_the_errors_of_its_record(
    trained: records.Record, weights: Path, words: list[str], answer: Any
) -> None:
    code, out, err = answer(f"weights={weights}", "format=json", *words)
    assert (code, err) == (0, "")
    found, metrics = json.loads(out), trained.metrics
    for mode, errors in (("centre", metrics.centre), ("ten_crops", metrics.ten_crops)):
        assert (found[mode]["top1"], found[mode]["top5"]) == (errors.top1, errors.top5)
    assert found["centre"]["loss"] == metrics.val_loss
    assert found["ten_crops"]["loss"] != metrics.val_loss
    assert (found["weights"], found["setup"], found["recipe"]) == (fingerprint(weights), "embedded", "source")
    assert found["data"] == {
        "source": "embedded", "content_hash": trained.data.content_hash, "classes": 10, "val_images": 30,
    }  # fmt: skip
    assert found["device"] == trained.machine.device


def test_the_weights_of_a_run_know_how_they_were_made(
    trained: records.Record, weights: Path, words: list[str], answer: Any
) -> None:
    """Without a recipe and a setup, and in another shape than the setup's own."""
    (cache,) = (word for word in words if word.startswith("data.cache="))
    code, out, err = answer(f"weights={weights}", "format=json", cache, "train.device=cpu")
    assert (code, err) == (0, "")
    found, metrics = json.loads(out), trained.metrics
    assert (found["setup"], found["recipe"]) == ("embedded", "source")
    assert (found["centre"]["top1"], found["ten_crops"]["top5"]) == (metrics.centre.top1, metrics.ten_crops.top5)


def test_the_mean_image_is_the_one_they_were_trained_with(
    trained: records.Record, weights: Path, words: list[str], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_data = store.open_data

    def others(config: Any) -> store.ImageData:
        data = open_data(config)
        return replace(data, mean=data.mean + 50, classes=("\x1b[31m", *data.classes[1:]))

    monkeypatch.setattr(store, "open_data", others)
    code, out, err = answer(f"weights={weights}", "format=json", *words)
    assert code == 0
    assert json.loads(out)["centre"]["loss"] == trained.metrics.val_loss
    assert err.startswith("warning: [b] weights.safetensors knows the classes ")
    assert err.rstrip("\n").isprintable()


def test_weights_that_do_not_fit_are_told_before_images_are_packed(
    weights: Path, words: list[str], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "open_data", lambda _: pytest.fail("images were packed"))
    code, out, err = answer(f"weights={weights}", *words, "model.sizes.fc7=2048")
    assert (code, out) == (2, "")
    assert "layer fc7: weight 256 x 256 in the file, 128 x 256 in the network" in err
    monkeypatch.setattr(sources, "_embedded", lambda: SimpleNamespace(classes=("a", "b", "c")))
    code, out, err = answer(f"weights={weights}", *words)
    assert (code, out) == (2, "")
    assert "layer fc8: weight 10 x 256 in the file, 3 x 256 in the network" in err


def test_the_table_is_for_readers(weights: Path, words: list[str], answer: Any) -> None:
    code, out, _ = answer(f"weights={weights}", *words)
    assert code == 0
    assert f"{fingerprint(weights)}: embedded, recipe source" in " ".join(out.split())
    assert "30 validation images of embedded" in out
    assert "ten crops" in out


def test_caffes_mean_image_takes_the_place_of_ours(
    trained: records.Record, weights: Path, words: list[str], answer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(protobuf.old_blob(np.full((3, SIZE, SIZE), 255)))
    found = json.loads(answer(f"weights={weights}", f"mean={path}", "format=json", *words)[1])
    assert found["centre"]["loss"] != trained.metrics.val_loss
    path.write_bytes(protobuf.old_blob(np.zeros((3, 256, 256))))
    code, out, err = answer(f"weights={weights}", f"mean={path}", *words)
    assert (code, out) == (2, "")
    assert "mean.binaryproto: 256 x 256 x 3 numbers, but the images have 72 x 72 x 3: set data.image_size" in err


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_shows_how_it_is_called(word: str, answer: Any) -> None:
    code, out, _ = answer(word)
    assert code == 0
    assert "python -m repro.evaluate weights=FILE setup=" in out


@pytest.mark.parametrize(
    ("mistakes", "message"),
    [
        ([], "weights=FILE is missing"),
        (["weights=x.pth", "format=xml"], "format=xml: choose one of table, json"),
        (["weights=x.pth", "recipe=papr"], "did you mean paper?"),
        (["weights=x.pth", "train.device=tpu"], "train.device=tpu"),
        (["weights=~nobody-here/x.pth"], "weights=~nobody-here/x.pth: there is no such home folder"),
        (["weights=/dev/zero"], "weights=/dev/zero: is no file"),
        (["weights={weights}", "mean=/dev/zero"], "mean=/dev/zero: is no file"),
        (["weights=x.pth"], "x.pth: cannot be read (No such file or directory)"),
        (["weights={weights}", "model.scale=0.125"], "layer conv1: weight 6 x 3 x 11 x 11 in the file, 12 x 3 x 11"),
    ],
)
def test_a_mistake_is_one_line(mistakes: list[str], message: str, weights: Path, words: list[str], answer: Any) -> None:
    mistakes = [mistake.format(weights=weights) for mistake in mistakes]
    keys = {mistake.partition("=")[0] for mistake in mistakes}
    kept = [word for word in words if word.partition("=")[0] not in keys]
    code, out, err = answer(*kept, *mistakes)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_json_has_null_where_there_is_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "measure", lambda *_: {"centre": {"top1": 90.0, "loss": math.nan}})
    monkeypatch.setattr(sys, "argv", ["evaluate", "weights=nothing", "format=json"])
    evaluate.main()
    assert json.loads(capsys.readouterr().out) == {"centre": {"top1": 90.0, "loss": None}}
