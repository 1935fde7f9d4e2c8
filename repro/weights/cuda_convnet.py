"""Checkpoints of cuda-convnet, the authors' program: pickles of Python 2, with a layer for each column.

Layers are those of net 145 (layers-145.cfg) and the sixth convolution of net 146. A layer has one matrix for each of
its inputs, in the order of its own `inputs`: `fc2048bb` names column b first (layers-145.cfg:277).

A pickle can ask for any code. This reader runs none but what stands in this file: not even numpy's own.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import UserError

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
        raise UserError(f"{path}: a checkpoint of {', '.join(layers)}: the two-column net has conv1a to fc1000")
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
            with zipfile.ZipFile(plain) as archive, archive.open(ZIP_MEMBER) as member:
                checkpoint = _Unpickler(member, path).load()
        else:
            plain.seek(0)
            checkpoint = _Unpickler(plain, path).load()
    if not isinstance(checkpoint, dict) or "model_state" not in checkpoint:
        raise UserError(f"{path}: a pickle, but not a checkpoint of cuda-convnet: it has no model_state")
    layers = checkpoint["model_state"]["layers"]
    return {layer["name"]: layer for layer in layers} if isinstance(layers, list) else layers


# ---- a pickle without code -------------------------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Builds plain values, our stand-ins below, and nothing else."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        """`path` is for the error."""
        super().__init__(file, encoding="latin1")  # a str of Python 2 is bytes: latin1 keeps each
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a global; UserError for one that no checkpoint needs."""
        if module == "options":  # the command line of the run, which says nothing about its weights
            return _Unused
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        raise UserError(f"{self.path}: asks for {module}.{name}, which is no part of weights: refused")


class _Unused:
    """An object of which nothing is needed."""

    def __init__(self, *_: object) -> None:
        """Takes and forgets whatever it is made of."""

    def __setstate__(self, _: object) -> None:
        """Forgets its attributes."""


class _Dtype:
    """What numpy pickles as `dtype('f4', 0, 1)`, and its byte order as a state of its own."""

    def __init__(self, code: str, *_: object) -> None:
        """`code`: kind and size of a number."""
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """`state`: a version, the byte order, and what only records have."""
        self.code = f"{state[1]}{self.code}".lstrip("|")


class _Array:
    """What numpy pickles as an empty array, and its content as a state."""

    values: np.ndarray

    def __init__(self, *_: object) -> None:
        """The class, shape and type of the empty array say nothing."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """`state`: a version, shape, type, whether columns come first (Fortran), and the numbers."""
        _, shape, dtype, fortran, data = state
        content = data.encode("latin1") if isinstance(data, str) else data
        self.values = np.frombuffer(content, dtype.code).reshape(shape, order="F" if fortran else "C")


def _new_object(kind: type, *_: object) -> object:
    """What `copy_reg` makes of a class with `object` as its base."""
    return kind()


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Unused,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstruct"): _Array for module in _MULTIARRAY},
    **{(module, "scalar"): _Unused for module in _MULTIARRAY},
    ("collections", "OrderedDict"): OrderedDict,
    ("ordereddict", "OrderedDict"): OrderedDict,
    ("copy_reg", "_reconstructor"): _new_object,
    ("__builtin__", "object"): _Unused,
}


def _values(array: Any) -> np.ndarray:
    """The numbers of an unpickled array, float32."""
    if not isinstance(array, _Array):
        raise TypeError(f"{type(array).__name__} instead of an array")
    return array.values.astype(np.float32)
