"""Files that hold no weights which are read here, as the programs that they are of write them."""

import argparse
import bz2
import gzip
import json
import lzma
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torch import nn

from repro import weights
from repro.errors import UserError
from tests.weights.nets import random_network, small_config
from tests.weights.test_formats import Evil

ROOT = Path(__file__).parents[2]


def write_onnx(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(nn.Linear(2, 2), (torch.ones(1, 2),), str(path), dynamo=False)


def write_bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def write_text(text: str) -> Callable[[Path], object]:
    return write_bytes(text.encode())


PAGE = "a page of HTML or XML: the download went wrong"
INDEX = {"metadata": {"total_size": 3}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors"}}
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (write_text(""), "an empty file: get it again"),
    "x.npy": (lambda path: np.save(path, np.ones(3)), "an array of NumPy: read it with numpy.load"),
    "x.h5": (write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file, as Keras writes: read it with h5py"),
    "7.3.mat": (write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64"), "an HDF5 file of MATLAB: read it with h5py"),
    "x.mat": (lambda path: scipy.io.savemat(path, {"a": np.ones(3)}), "a file of MATLAB: read it with scipy"),
    "x.onnx": (write_onnx, "a model of ONNX: export"),
    "no_producer.onnx": (write_bytes(b"\x08\x08\x22\x01d\x3a\x03\x12\x01g"), "a model of ONNX: export"),
    "saved_model.pb": (write_bytes(b"\x08\x01\x12\x80\x01"), "a SavedModel of TensorFlow: export"),
    "x.gz": (write_bytes(gzip.compress(b"x")), "compressed by gzip: unpack it"),
    "x.xz": (write_bytes(lzma.compress(b"x")), "compressed by xz: unpack it"),
    "x.bz2": (write_bytes(bz2.compress(b"x")), "compressed by bzip2: unpack it"),
    "x.zst": (write_bytes(b"\x28\xb5\x2f\xfd\x04"), "compressed by zstd: unpack it"),
    "x.gguf": (write_bytes(b"GGUF\x03\0\0\0"), "a GGUF file: get the weights as safetensors"),
    "x.pth": (
        write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "a pointer of Git LFS .*: git lfs pull",
    ),
    "x.html": (write_text("\n<!DOCTYPE html><title>404</title>"), PAGE),
    "bom.html": (write_text("\ufeff<html>"), PAGE),
    "comment.html": (write_text("<!-- saved -->\n<html>"), PAGE),
    "error.xml": (write_text('<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'), PAGE),
    "x.index.json": (
        write_text(json.dumps(INDEX, indent=2)),
        "the list of weights in several files: load each, and save",
    ),
}


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_program_is_told_for_what_it_is(name: str, tmp_path: Path) -> None:
    write, answer = FILES[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: {answer}"):
        weights.read(tmp_path / name)


# ---- pickles of torch ------------------------------------------------------------------------------------------------

Wrap = Callable[[nn.Module], Any]
PLACES: dict[str, Wrap] = {
    "model": lambda net: net,
    "state dict": lambda net: net.state_dict(),
    "model in a checkpoint": lambda net: {"epoch": 1, "model": net},
    "state dict in a checkpoint": lambda net: {"epoch": 1, "state_dict": net.state_dict()},
    "beside a model": lambda net: {"state_dict": net.state_dict(), "ema": net},
    "behind options": lambda net: {"args": argparse.Namespace(lr=0.1), "state_dict": net.state_dict()},
}


def pickled(value: Any, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(value, protocol))


def saved(value: Any, path: Path, protocol: int) -> None:
    torch.save(value, path, pickle_protocol=protocol)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as answer:
        weights.read(path)
    return str(answer.value)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", PLACES)
def test_a_plain_pickle_of_torch_is_refused_with_the_code_that_saves_its_weights(
    place: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    pickled(PLACES[place](net), tmp_path / "x.pkl", protocol)
    monkeypatch.chdir(tmp_path)
    line = refused(Path("x.pkl"))
    assert re.match(r"x\.pkl: a plain pickle of torch that asks for [\w.]+: where you trust it, save its state", line)
    assert_saves(line.partition("by torch: ")[2], net)


def test_a_file_of_torch_with_a_model_beside_the_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    saved(PLACES["beside a model"](net), tmp_path / "x.pth", 2)
    monkeypatch.chdir(tmp_path)
    assert_saves(refused(Path("x.pth")).partition(" alone: ")[2], net)


def assert_saves(code: str, net: nn.Sequential) -> None:
    """Runs the code of an advice in the working folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # one line that opens a file
        exec(code, {"pickle": pickle, "torch": torch})
    state = torch.load("weights.pth", weights_only=True)
    assert state.keys() == net.state_dict().keys()
    assert torch.equal(state["0.weight"], net.state_dict()["0.weight"])


@pytest.mark.parametrize("write", [pickled, saved])
def test_no_code_is_given_for_a_model_under_an_unknown_key(
    write: Callable[[Any, Path, int], None], tmp_path: Path
) -> None:
    write({"epoch": 1, "alexnet": nn.Linear(2, 3)}, tmp_path / "x", 2)
    line = refused(tmp_path / "x")
    assert line.endswith(": where you trust it, load it, and save the state_dict() of the model in it by torch.save")


def test_a_pickle_beside_tensors_is_not_run(tmp_path: Path) -> None:
    pickled({"weights": torch.ones(1), "evil": Evil(tmp_path / "touched")}, tmp_path / "x.pkl", 2)
    assert "a plain pickle of torch that asks for " in refused(tmp_path / "x.pkl")
    assert not (tmp_path / "touched").exists()


# ---- names of files --------------------------------------------------------------------------------------------------


def test_a_name_that_the_locale_lacks(tmp_path: Path) -> None:
    weights.save(tmp_path / "gewichte-\u00e4.safetensors", random_network(small_config("paper")))
    code = f"""
import glob
from repro import weights
print(len(weights.read(__import__('pathlib').Path(glob.glob({str(tmp_path / "gewichte-*")!r})[0]))))
"""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("16\n", "")


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_of_numpy_arrays_is_refused_with_what_to_do(protocol: int, wrapped: bool, tmp_path: Path) -> None:
    arrays = {"conv1.weight": np.zeros((2, 3, 11, 11), "float32")}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([arrays] if wrapped else arrays, protocol))
    assert "and save its arrays under the layers' names: safetensors.numpy.save_file(" in refused(tmp_path / "x.pkl")
