"""Names that are no UTF-8, which the file systems of Linux allow."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from repro.weights.own import read_origin
from tests.tiny import WORDS, make_image_folder, only_record, run_command

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names"),
]
ODD = os.fsdecode(b"caf\xe9")


def test_names_that_are_no_utf8_are_escaped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / ODD)
    for split in ("train", "val"):
        (images / split / "class_0").rename(images / split / ODD)
    (images / "train" / "class_1" / f"{ODD}.png").write_bytes(b"no image")
    results = tmp_path / "results" / ODD
    words = [*WORDS, f"data.root='{images}'", f"results_dir='{results}'", "data.skip_bad=true", "train.epochs=1"]
    assert run_command(*words) == 0
    record = only_record(results)
    assert record.data.skipped == ["train/class_1/caf\\udce9.png"]
    assert record.command.count("caf\\udce9") == 2  # data.root and results_dir
    (weights,) = results.rglob("weights.safetensors")
    origin = read_origin(Path(shutil.copy(weights, tmp_path)))
    assert origin is not None
    assert set(origin.classes) == {ODD, "class_1"}
    assert run_command(*words) == 0
    out, err = capfd.readouterr()
    assert "results/caf\\udce9/runs" in out
    assert "Traceback" not in out + err


def test_a_record_that_could_not_be_filed_is_told_before_training(
    images: Path, results: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro.runner.open_data", lambda _: pytest.fail("too late"))
    (results / "runs").mkdir(parents=True)
    (results / "runs" / "imagefolder").touch()
    assert run_command(*WORDS, f"data.root={images}", f"results_dir={results}") == 2
    error = capfd.readouterr().err
    assert error.count("error: ") == 1
    assert "cannot be written" in error
    assert "choose another results_dir" in error
