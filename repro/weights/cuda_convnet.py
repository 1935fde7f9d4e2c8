"""Checkpoints of cuda-convnet, the authors' program: pickles of Python 2, with a layer for each column.

Layers are those of net 145 (layers-145.cfg) and the sixth convolution of net 146. A layer has one matrix for each of
its inputs, in the order of its own `inputs`: `fc2048bb` names column b first (layers-145.cfg:277).

"""

import io
import mmap
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import UserError
from repro.weights.foreign import BY_NAME, SAVE_BY_HAND, asks_for, way_to_weights
from repro.weights.names import listed
from repro.weights.pickles import COMMON, MOST_UNPACKED, Call, Dictionary, Globals, Unused, load

ZIP_MEMBER = "data"
"""Where a compressed checkpoint keeps its pickle (cuda-convnet, util.py)."""

# Our layer -> those of the columns. The classifier sees both columns from one.
_COLUMNS = {
    **{f"conv{number}": (f"conv{number}a", f"conv{number}b") for number in range(1, 7)},
    "fc6": ("fc2048a", "fc2048b"),
    "fc7": ("fc2048ba", "fc2048bb"),
    "fc8": ("fc1000",),
}

Layer = dict[str, Any]


def read(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, plain or compressed. UserError where it is not one, or asks for code."""
    layers = _layers(path)
    tensors = {}
    for name, columns in _COLUMNS.items():
        if not any(column in layers for column in columns):
            continue  # net 145 has no conv6; what else is missing shows when the network is filled
        try:
            weights = [_weights(layers[column]) for column in columns]
            biases = [_values(layers[column]["biases"]).reshape(-1) for column in columns]
            tensors[f"{name}.weight"] = torch.from_numpy(np.concatenate(weights))
            tensors[f"{name}.bias"] = torch.from_numpy(np.concatenate(biases))
        except KeyError as error:
            raise UserError(f"{path}: layer {name}: the checkpoint has no {error.args[0]}") from error
        except (ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path}: layer {name}: its matrices do not fit together ({error})") from error
    if not tensors:
        raise UserError(f"{path}: a checkpoint of {listed(layers)}: the two-column net has conv1a to fc1000")
    return tensors


def _weights(layer: Layer) -> np.ndarray:
    """A column's share of a layer, (maps, C, k, k) or (units, inputs), its inputs in the order of the columns.

    Rows of a matrix are its inputs, channel by channel, and its columns are maps or units (layer.py:883, 1072).
    """
    sources = [source["name"] for source in layer["inputLayers"]] if "inputLayers" in layer else layer["inputs"]
    parts = {}
    for number, (source, matrix) in enumerate(zip(sources, layer["weights"], strict=True)):
        part = _values(matrix).T
        if layer["type"] == "conv":
            size = layer["filterSize"][number]
            part = part.reshape(len(part), -1, size, size)
        parts[_column(source)] = part
    return np.concatenate([parts[column] for column in sorted(parts)], axis=1)


def _column(name: str) -> str:
    """The letter of `pool2a`, or of `pool3a_neuron`, as the output of a layer's ReLU is called (layer.py:627-645)."""
    return re.sub(r"_neuron.*", "", name)[-1]


def _layers(path: Path) -> dict[str, Layer]:
    with path.open("rb") as plain:
        if zipfile.is_zipfile(plain):
            checkpoint = load(io.BytesIO(_unpacked(path)), _GLOBALS, partial(_refusal, path))
        else:
            checkpoint = load(mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ), _GLOBALS, partial(_refusal, path))
    if not isinstance(checkpoint, dict) or "model_state" not in checkpoint:
        raise UserError(
            f"{path}: a pickle, but not a checkpoint of cuda-convnet: it has no model_state; if it holds arrays of"
            f" NumPy, load it where you trust it, and {BY_NAME}"
        )
    layers = checkpoint["model_state"]["layers"]
    return {layer["name"]: layer for layer in layers} if isinstance(layers, list) else layers


def _refusal(path: Path, name: str, pickled: bytes) -> UserError:
    """The error for a global; with the code that saves the weights alone where they are torch's."""
    if name in OF_NUMPY and asks_for("numpy", pickled) and not asks_for("torch", pickled):
        return UserError(f"{path}: a pickle of NumPy arrays: where you trust it, load it, and {BY_NAME}")
    if not asks_for("torch", pickled):
        return UserError(f"{path}: asks for {name}, which is no part of weights: refused")
    plain = f"{path}: a plain pickle of torch that asks for {name}"
    way = way_to_weights(pickled)
    if way is None:
        return UserError(f"{plain}: {SAVE_BY_HAND}")
    code = f"torch.save(pickle.load(open({str(path)!r}, 'rb')){way}, 'weights.pth')"
    return UserError(f"{plain}: where you trust it, save its state dict by torch: {code}")


def _unpacked(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(ZIP_MEMBER).file_size > MOST_UNPACKED * path.stat().st_size:
            raise ValueError("an archive that would grow out of proportion")
        return archive.read(ZIP_MEMBER)


# ---- what its pickles may call ---------------------------------------------------------------------------------------


class _Dtype:
    """A type that numpy pickles as `dtype('f4', 0, 1)`, and its byte order as a state of its own."""

    def __init__(self, code: str, *_: object) -> None:
        """`code`: kind and size of a number."""
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """`state`: a version, the byte order, and what only records have."""
        self.code = (state[1] + self.code).lstrip("|")


class _Array:
    """An array that numpy pickles as an empty one, and its content as a state."""

    values: np.ndarray

    def __init__(self, *_: object) -> None:
        """The class, shape and type of the empty array say nothing."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """`state`: a version, shape, type, whether columns come first (Fortran), and the numbers."""
        _, shape, dtype, fortran, data = state
        content = data.encode("latin1") if isinstance(data, str) else data
        self.values = np.frombuffer(content, dtype.code).reshape(shape, order="F" if fortran else "C")


OF_NUMPY = ("_codecs.encode", "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
"""What Python 3 writes for an array of NumPy, in protocols 2 and 5; the authors' Python 2 did not."""
_GLOBALS: Globals = {
    **COMMON,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstruct"): _Array for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    ("ordereddict", "OrderedDict"): Dictionary,
    ("copy_reg", "_reconstructor"): Call(lambda kind, *_: kind()),  # what makes an object of a class
    ("__builtin__", "object"): Unused,
    ("options", "*"): Unused,  # the command line of the run, which says nothing about its weights
}


def _values(array: Any) -> np.ndarray:
    """The numbers of an unpickled array, float32."""
    if not isinstance(array, _Array):
        raise TypeError(f"{type(array).__name__} instead of an array")
    return array.values.astype(np.float32)
