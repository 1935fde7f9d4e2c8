"""Files that hold no weights which are read here, as the programs that they are of write them."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torch import nn

from repro import weights
from repro.errors import UserError
from tests.weights.nets import random_network, small_config

ROOT = Path(__file__).parents[2]


def write_onnx(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(nn.Linear(2, 2), (torch.ones(1, 2),), str(path), dynamo=False)


def write_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


INDEX = {"metadata": {"total_size": 3}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors"}}
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (write_text(""), "an empty file: get it again"),
    "x.npy": (lambda path: np.save(path, np.ones(3)), "one array of NumPy: save its arrays under the layers' names"),
    "x.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file, as Keras writes: "),
    "x.mat": (lambda path: scipy.io.savemat(path, {"a": np.ones(3)}), "a file of MATLAB: read it with scipy"),
    "x.onnx": (write_onnx, "a model of ONNX: export"),
    "x.gz": (lambda path: path.write_bytes(gzip.compress(b"x")), "compressed by gzip: unpack it"),
    "x.xz": (lambda path: path.write_bytes(lzma.compress(b"x")), "compressed by xz: unpack it"),
    "x.bz2": (lambda path: path.write_bytes(bz2.compress(b"x")), "compressed by bzip2: unpack it"),
    "x.zst": (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd\x04"), "compressed by zstd: unpack it"),
    "x.gguf": (lambda path: path.write_bytes(b"GGUF\x03\0\0\0"), "a GGUF file: get the weights as safetensors"),
    "x.pth": (write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "a pointer .*: git lfs pull"),
    "x.html": (write_text("\n<!DOCTYPE html><title>404</title>"), "a web page: the download went wrong"),
    "x.index.json": (write_text(json.dumps(INDEX, indent=2)), "the list of weights in several files: put them into"),
}


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_program_is_told_for_what_it_is(name: str, tmp_path: Path) -> None:
    write, answer = FILES[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: {answer}"):
        weights.read(tmp_path / name)


@pytest.mark.parametrize("whole", [True, False])
def test_a_plain_pickle_of_torch_is_refused_with_the_code_that_saves_its_weights(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(net if whole else net.state_dict()))
    with pytest.raises(UserError, match=r"x\.pkl: a plain pickle of torch: where you trust it, save") as refused:
        weights.read(tmp_path / "x.pkl")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # one line that opens a file
        exec(str(refused.value).partition("by torch: ")[2], {"pickle": pickle, "torch": torch})
    assert torch.equal(torch.load(tmp_path / "weights.pth")["0.weight"], net[0].weight)


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
