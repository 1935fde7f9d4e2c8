"""Files that hold no weights which are read here, told by how they begin, each with what to do instead."""

import pickletools
import re
from collections.abc import Sequence
from pathlib import Path

from repro.errors import UserError

BY_NAME = "save its arrays under the layers' names: safetensors.numpy.save_file({name: array}, 'weights.safetensors')"
_MERGE = "load each, and save all as one: safetensors.torch.save_file({**first, **second}, 'weights.safetensors')"
_EXPORT = "export the weights from the program that made it"
_UNPACK = "unpack it, and give the file of weights in it"
_BEGINNINGS: Sequence[tuple[bytes, str, str]] = (
    (rb"\Z", "an empty file", "get it again"),
    (rb"\x93NUMPY", "an array of NumPy", f"read it with numpy.load, and {BY_NAME}"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", f"read it with h5py, and {BY_NAME}"),
    (rb"MATLAB 7\.3 ", "an HDF5 file of MATLAB", f"read it with h5py, and {BY_NAME}"),
    (rb"MATLAB ", "a file of MATLAB", f"read it with scipy.io.loadmat, and {BY_NAME}"),
    (rb"\x08\x01\x12", "a SavedModel of TensorFlow", _EXPORT),
    (rb"\x08[\x02-\x7f][\x12\x1a\x22\x28\x32\x3a]", "a model of ONNX", _EXPORT),  # its version, then any later field
    (rb"GGUF", "a GGUF file", "get the weights as safetensors"),
    (rb"\x1f\x8b", "compressed by gzip", _UNPACK),
    (rb"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (rb"BZh", "compressed by bzip2", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (rb"version https://git-lfs", "a pointer of Git LFS in place of the file", "fetch that: git lfs pull"),
    (rb"(\xef\xbb\xbf)?\s*<[!?a-z]", "a page of HTML or XML", "the download went wrong: get the file itself"),
    (rb"\s*\{[^\0]*\"weight_map\"", "the list of weights in several files", _MERGE),
)
"""How a file begins, as a regular expression; what it is; what to do."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Keys under which programs keep a model in a checkpoint, for the advice of an error."""
SAVE_BY_HAND = "where you trust it, load it, and save the state_dict() of the model in it by torch.save"
"""The advice where `way_to_weights` knows none."""


def refusal(path: Path, start: bytes) -> UserError:
    """The error for a file that begins so."""
    for beginning, what, remedy in _BEGINNINGS:
        if re.match(beginning, start, re.IGNORECASE):
            return UserError(f"{path}: {what}: {remedy}")
    kinds = "safetensors, a state dict of torch, a .caffemodel or a checkpoint of cuda-convnet"
    return UserError(f"{path}: of no known format: give {kinds}")


# ---- pickles that ask for code ---------------------------------------------------------------------------------------


def asks_for(package: str, pickled: bytes) -> bool:
    """Tells whether a pickle asks for anything of a package, such as torch, without running it."""
    return any(re.match(rf"{package}[. ]", word) for word in _words(pickled))


def way_to_weights(pickled: bytes) -> str | None:
    """What leads from a pickle's value to its state dict, as code: `['model'].state_dict()`; without running it.

    Empty where the value holds neither a model nor a key that programs keep one under; None where it holds a model
    under an unknown key.
    """
    words = _words(pickled)
    first = next(opcode.name for opcode, *_ in pickletools.genops(pickled) if opcode.name not in ("PROTO", "FRAME"))
    in_dict = first == "EMPTY_DICT"
    key = next((word for word in WRAPPERS if in_dict and word in words), None)
    whole = "_parameters" in words  # an attribute of every torch.nn.Module
    if key is not None:
        return f"[{key!r}]" + (".state_dict()" if whole and not key.endswith("state_dict") else "")
    if not whole:
        return ""
    return None if in_dict else ".state_dict()"


def _words(pickled: bytes) -> set[str]:
    return {argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)}
