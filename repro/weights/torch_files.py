"""Files of `torch.save`: zip archives since torch 1.6, streams of pickles before, tar archives before 0.1.10.

`torch.load(weights_only=True)` reads neither the tar archives, in which torchvision's first files are, nor pickles of
protocol 3 and up. This reader runs no code either: a file's pickle may call what stands below. It reads no number
before one asks for it, so that an optimizer's state costs nothing, and compares all declared sizes with the file's.
"""

import io
import mmap
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from repro.errors import UserError
from repro.weights.foreign import SAVE_BY_HAND, way_to_weights
from repro.weights.names import listed
from repro.weights.pickles import COMMON, MOST_UNPACKED, Call, Dictionary, Globals, Sealed, Unused, load
from repro.weights.stored import Storage, Stored, stored

MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The number 0x1950a86a20f9469cfc6c as a pickle holds it: the start of a stream (torch/serialization.py)."""
ZIP_MAGIC = b"PK"
TAR_MAGIC = (257, b"ustar")
"""Where in a tar archive's first header its format stands (POSIX.1-1988)."""

_TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_MODULES = ("torch", "torch.cuda")
"""Where they come from: the first files of torch say on which processor a tensor lay."""


class _Type(Sealed):
    """Stands in for `torch.FloatStorage` and its like."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


_GLOBALS: Globals = {
    **COMMON,
    **{(module, f"{name}Storage"): _Type(dtype) for module in _MODULES for name, dtype in _TYPES.items()},
    **{(module, f"{name}Tensor"): Unused for module in _MODULES for name in _TYPES},
    **{("torch", str(dtype).removeprefix("torch.")): Unused for dtype in _TYPES.values()},
    ("torch._utils", "_rebuild_tensor"): Call(stored),
    ("torch._utils", "_rebuild_tensor_v2"): Call(stored),
    ("torch._utils", "_rebuild_parameter"): Call(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): Call(lambda tensor, *_: tensor),
    ("torch", "Size"): Unused,  # shapes of tensors are plain tuples
    ("torch", "device"): Unused,
    # what training programs keep beside the weights
    ("argparse", "Namespace"): Unused,
    ("collections", "defaultdict"): Call(lambda *_: Dictionary()),
    ("collections", "Counter"): Dictionary,
    ("numpy", "dtype"): Unused,
    **{(module, "_reconstruct"): Unused for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(module, "_frombuffer"): Unused for module in ("numpy.core.numeric", "numpy._core.numeric")},
    ("_codecs", "encode"): Unused,  # how Python 3 pickles bytes for protocol 2
    **{(module, "PosixPath"): Unused for module in ("pathlib", "pathlib._local")},
    **{(module, name): Unused for module in ("builtins", "__builtin__") for name in ("set", "list", "dict")},
}


def recognises(start: bytes) -> bool:
    """Tells whether a file of torch that is no zip archive begins so; pickles of protocol 4 have a frame in front."""
    return MAGIC in start[:32] or _is_tar(start)


def _is_tar(start: bytes) -> bool:
    place, magic = TAR_MAGIC
    return start[place:].startswith(magic)


def read(path: Path) -> Any:
    """The saved value, plain apart from its tensors (`Stored`). UserError where it asks for code or holds a program."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if content[: len(ZIP_MAGIC)] == ZIP_MAGIC:
        return _read_zip(path)
    if _is_tar(content[: tarfile.BLOCKSIZE]):
        return _read_tar(content, path)
    return _read_stream(content, path)


# ---- zip -------------------------------------------------------------------------------------------------------------


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        pickles = [name for name in sizes if name.rpartition("/")[2] == "data.pkl"]
        if not pickles:
            raise _foreign(path, "zip", sizes)
        if sum(sizes.values()) > MOST_UNPACKED * path.stat().st_size:
            raise ValueError("an archive that would grow out of proportion")
        (name,) = pickles
        root = name.removesuffix("data.pkl")
        if f"{root}constants.pkl" in sizes:
            remedy = f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')"
            raise UserError(f"{path}: a TorchScript program: where you trust it, save its weights alone: {remedy}")
        if f"{root}byteorder" in sizes and archive.read(f"{root}byteorder") != b"little":
            raise _big_endian(path)
        content = archive.read(name)

    def persistent(pid: Any) -> Storage:
        kind, type_, key, _, count = pid
        entry = root + "data/" + key
        if kind != "storage" or sizes[entry] != count * type_.dtype.itemsize:
            raise ValueError("a storage of another size than its entry")
        return Storage(type_.dtype, 0, count, partial(_entry, path, entry))

    return load(io.BytesIO(content), _GLOBALS, partial(_refusal, path), persistent)


def _entry(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)  # which compares its checksum


# ---- a stream of pickles ---------------------------------------------------------------------------------------------


def _read_stream(content: mmap.mmap, path: Path) -> Any:
    """Magic number, version, machine, the value, the keys of its storages; then these, each after its count."""
    declared: dict[Any, Storage] = {}
    places: dict[Any, int] = {}

    def persistent(pid: Any) -> Storage:
        kind, type_, key, _, count, view = pid
        if kind != "storage":
            raise ValueError("an id of no storage")
        whole = declared.setdefault(
            key, Storage(type_.dtype, 0, count, lambda: _bytes(content, places[key], count * type_.dtype.itemsize))
        )
        if view is None:
            return whole
        _, start, length = view
        return _part(whole, start, length)

    refuse = partial(_refusal, path)
    for _ in range(2):
        load(content, {}, refuse)
    if load(content, _GLOBALS, refuse).get("little_endian") is False:
        raise _big_endian(path)
    value = load(content, _GLOBALS, refuse, persistent)
    for key in load(content, {}, refuse):
        places[key] = _skip_numbers(content, declared[key].count, declared[key].dtype)
    return value


def _part(whole: Storage, start: int, count: int) -> Storage:
    """A storage that is a part of another, as torch saved them up to version 0.3."""
    if min(start, count) < 0 or start + count > whole.count:
        raise ValueError("a part that reaches out of its storage")
    return Storage(whole.dtype, start, count, whole.read)


def _skip_numbers(content: mmap.mmap, count: int | None, dtype: torch.dtype) -> int:
    """Leaves a storage's numbers behind, and returns where they begin. ValueError where their count is another."""
    (found,) = struct.unpack("<q", content.read(8))
    start = content.tell()
    if found < 0 or count not in (None, found) or found * dtype.itemsize > len(content) - start:
        raise ValueError("a storage of another size than declared")
    content.seek(start + found * dtype.itemsize)
    return start


def _bytes(content: mmap.mmap, start: int, length: int) -> bytes:
    return content[start : start + length]


# ---- tar -------------------------------------------------------------------------------------------------------------


def _read_tar(content: mmap.mmap, path: Path) -> Any:
    """An archive of `storages`, of `tensors` that lie in them, and of a `pickle` that knows the tensors by number."""
    members = _members(content)
    if not {"storages", "tensors", "pickle"} <= {name.removeprefix("./") for name in members}:
        raise _foreign(path, "tar", members)
    read_next = partial(load, content, _GLOBALS, partial(_refusal, path))
    content.seek(members["storages"])
    storages = _storages(content, read_next)
    content.seek(members["tensors"])
    tensors = _tensors(content, read_next, storages)
    content.seek(members["pickle"])
    return read_next(lambda pid: tensors[int(pid)])


def _storages(content: mmap.mmap, read_next: Callable[[], Any]) -> dict[Any, Storage]:
    """Reads the storages by key; those that are parts of others come last."""
    found = {}
    for _ in range(read_next()):
        key, _, type_ = read_next()
        start = _skip_numbers(content, None, type_.dtype)
        length = content.tell() - start
        found[key] = Storage(type_.dtype, 0, length // type_.dtype.itemsize, partial(_bytes, content, start, length))
    for key, root, start, count in read_next():
        found[key] = _part(found[root], start, count)
    return found


def _tensors(content: mmap.mmap, read_next: Callable[[], Any], storages: dict[Any, Storage]) -> dict[int, Stored]:
    """Each with its axes as 8 bytes, sizes, strides, and its offset in the storage (torch/serialization.py)."""
    found = {}
    for _ in range(read_next()):
        key, storage, _ = read_next()
        (axes,) = struct.unpack("<i4x", content.read(8))
        *numbers, offset = struct.unpack(f"<{2 * axes + 1}q", content.read(8 * (2 * axes + 1)))
        found[int(key)] = stored(storages[storage], offset, numbers[:axes], numbers[axes:])
    return found


def _members(content: mmap.mmap) -> dict[str, int]:
    """Finds where each file of the archive begins; tarfile itself can go round in circles in a damaged one."""
    found, position = {}, 0
    while position < len(content) and content[position] != 0:
        header = tarfile.TarInfo.frombuf(content[position : position + tarfile.BLOCKSIZE], "utf-8", "strict")
        if header.size < 0:
            raise ValueError("a file of negative size")
        found[header.name] = position + tarfile.BLOCKSIZE
        position = found[header.name] + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return found


# ---- what is refused -------------------------------------------------------------------------------------------------


def _big_endian(path: Path) -> UserError:
    return UserError(f"{path}: saved on a big-endian machine: load it there, and save it as safetensors")


def _foreign(path: Path, kind: str, names: Iterable[str]) -> UserError:
    """The error for an archive that torch did not write."""
    names = list(names)
    if not names:
        return UserError(f"{path}: an empty {kind} archive: give the file of weights")
    if kind == "zip" and all(name.endswith(".npy") for name in names):
        state = f"{{name: torch.from_numpy(array) for name, array in numpy.load({str(path)!r}).items()}}"
        return UserError(f"{path}: arrays of NumPy: make it a state dict of torch: torch.save({state}, 'weights.pth')")
    return UserError(
        f"{path}: a {kind} archive without weights of torch: give the file of weights (in it: {listed(names)})"
    )


def _refusal(path: Path, name: str, pickled: bytes) -> UserError:
    """The error for a global, with the code that saves the weights alone where the pickle shows how."""
    asks = f"{path}: asks for {name}, which is no part of weights"
    way = way_to_weights(pickled)
    if not way:
        return UserError(f"{asks}: {SAVE_BY_HAND if way is None else 'refused'}")
    code = f"torch.save(torch.load({str(path)!r}, weights_only=False){way}, 'weights.pth')"
    return UserError(f"{asks}: where you trust it, save its state dict alone: {code}")
