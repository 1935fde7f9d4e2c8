"""Damaged files of every format: cut short, bits flipped, bytes changed, moved and doubled."""

import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from repro import weights
from repro.errors import UserError
from repro.weights.own import read_origin
from repro.weights.torchvision import LAYERS
from tests.weights import protobuf, tar
from tests.weights.python2 import dumps
from tests.weights.test_cuda_convnet import zipped

TRIES = 120
STATE = {f"{layer}.{kind}": torch.ones(2, 2) for layer in LAYERS for kind in ("weight", "bias")}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}
LAYER = {"name": "conv1a", "type": "conv", "inputs": ["data"], "filterSize": [1], "biases": np.ones((2, 1), "f4")}
CHECKPOINT = dumps({"model_state": {"layers": [{**LAYER, "weights": [np.ones((3, 2), "f4")]}, {**LAYER, "name": "x"}]}})
CAFFE = {layer: [np.ones((2, 2)), np.ones(2)] for layer in LAYERS.values()}
METADATA = {"record": "a/b/c/seed0", "config": '{"recipe": "paper"}', "classes": '["a", "b"]'}

WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file({**STATE, "images.mean": torch.ones(3)}, path, METADATA),
    "torch": lambda path: torch.save({"state_dict": STATE}, path),
    "torch, protocol 4": lambda path: torch.save(STATE, path, pickle_protocol=4),
    "torch before 1.6": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "torch, tar": lambda path: path.write_bytes(tar.archive(ARRAYS)),
    "Caffe": lambda path: path.write_bytes(protobuf.model(CAFFE)),
    "Caffe before 2015": lambda path: path.write_bytes(protobuf.old_model(CAFFE)),
    "cuda-convnet": lambda path: path.write_bytes(CHECKPOINT),
    "cuda-convnet, zip": lambda path: path.write_bytes(zipped(CHECKPOINT)),
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content after one to three mishaps."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(changed))
        mishap = draw.randrange(5)
        if mishap == 0:
            del changed[place + 2 :]
        elif mishap == 1:
            changed[place] ^= 1 << draw.randrange(8)
        elif mishap == 2:
            changed[place : place + 4] = draw.randbytes(4)
        elif mishap == 3:
            del changed[place : place + draw.randrange(1, 40) % len(changed)]
        else:
            changed[place:place] = changed[draw.randrange(len(changed)) :][: draw.randrange(1, 40)]
    return bytes(changed)


def error_of(reader: Callable[[Path], object], path: Path) -> str:
    """What a reader says is wrong, if anything."""
    try:
        reader(path)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    """Or not seen, where it lies in a number or a name; but never a traceback, a hang, or the end of the process."""
    path = tmp_path / "x.pth"
    WRITERS[name](path)
    whole = path.read_bytes()
    draw = random.Random(name)
    told = 0
    for _ in range(TRIES):
        path.write_bytes(damaged(whole, draw))
        start = time.process_time()
        for reader in (weights.read, read_origin):
            line = error_of(reader, path)
            assert line.isprintable()
            told += bool(line)
        assert time.process_time() - start < 5
    assert told > TRIES / 4


@pytest.mark.parametrize("name", WRITERS)
def test_each_file_is_read_while_it_is_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    WRITERS[name](path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name.startswith("cuda-convnet"):
            with pytest.raises(UserError, match="layer conv1: the checkpoint has no conv1b"):
                weights.read(path)
        else:
            assert len(weights.read(path)) == len(STATE)
