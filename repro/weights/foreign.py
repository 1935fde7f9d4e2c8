"""Files that hold no weights which are read here, told by how they begin, each with what to do instead."""

import re
from collections.abc import Sequence
from pathlib import Path

from repro.errors import UserError

_BY_NAME = "save its arrays under the layers' names: safetensors.numpy.save_file({name: array}, 'weights.safetensors')"
_UNPACK = "unpack it, and give the file of weights in it"
_BEGINNINGS: Sequence[tuple[bytes, str, str]] = (
    (rb"\Z", "an empty file", "get it again"),
    (rb"\x93NUMPY", "one array of NumPy", _BY_NAME),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _BY_NAME),
    (rb"MATLAB ", "a file of MATLAB", f"read it with scipy.io.loadmat, and {_BY_NAME}"),
    (rb"\x08[\x01-\x7f][\x12\x1a\x3a]", "a model of ONNX", "export the weights from the program that made it"),
    (rb"GGUF", "a GGUF file", "get the weights as safetensors"),
    (rb"\x1f\x8b", "compressed by gzip", _UNPACK),
    (rb"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (rb"BZh", "compressed by bzip2", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (rb"version https://git-lfs", "a pointer that stands for the file itself", "fetch that: git lfs pull"),
    (rb"\s*<(!doctype html|html)", "a web page", "the download went wrong: get the file itself"),
    (rb"\s*\{[^\0]*\"weight_map\"", "the list of weights in several files", "put them into one: torch.save"),
)
"""How a file begins, as a regular expression; what it is; what to do."""


def refusal(path: Path, start: bytes) -> UserError:
    """The error for a file that begins so."""
    for beginning, what, remedy in _BEGINNINGS:
        if re.match(beginning, start, re.IGNORECASE):
            return UserError(f"{path}: {what}: {remedy}")
    kinds = "safetensors, a state dict of torch, a .caffemodel or a checkpoint of cuda-convnet"
    return UserError(f"{path}: of no known format: give {kinds}")
