"""The CPU kernels of LRN over maps, `lrn.cpp`: compiled once for a processor and kept with the user's caches."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from repro.files import user_cache

SOURCE = Path(__file__).with_name("lrn.cpp")
# Inexact shortcuts (-ffast-math) stay off: a NaN must come through, for it is how a run that diverges is known.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
COMPILERS = (os.environ.get("CXX", ""), "g++", "clang++")
BETA = 0.75


def serves(x: Tensor, beta: float) -> bool:
    """Whether there is a kernel for this tensor (N, C, H, W) and power, and a compiler to make it with."""
    return beta == BETA and x.device.type == "cpu" and x.dtype in _NAMES and _library() is not None


def forward(x: Tensor, columns: int, n: int, k: float, alpha: float) -> Tensor:
    """LRN of a dense (N, C, H, W); same shape, type and layout out."""
    out = torch.empty_like(x)
    _call("forward", (x, out), columns, n, k, alpha)
    return out


def backward(x: Tensor, gradient: Tensor, columns: int, n: int, k: float, alpha: float) -> Tensor:
    """The input's gradient (N, C, H, W) from that of the output, both laid out alike."""
    out = torch.empty_like(x)
    _call("backward", (x, gradient, out), columns, n, k, alpha)
    return out


_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def _call(name: str, tensors: tuple[Tensor, ...], columns: int, n: int, k: float, alpha: float) -> None:
    x = tensors[0]
    count, maps, places = x.shape[0], x.shape[1] // columns, x.shape[2] * x.shape[3]
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    outer, positions = (count * places, 1) if channels_last else (count, places)
    library = _library()
    assert library is not None
    getattr(library, f"{name}_{_NAMES[x.dtype]}")(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        *(ctypes.c_long(number) for number in (outer * columns, maps, positions, n)),
        ctypes.c_float(k),
        ctypes.c_float(alpha),
    )


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, or none that can make them."""
    for compiler in filter(shutil.which, COMPILERS):
        for openmp in (["-fopenmp"], []):  # without it they run, on one thread
            try:
                return _load([compiler, *FLAGS, *openmp])
            except (OSError, subprocess.SubprocessError):
                continue
    return None


def _load(command: list[str]) -> ctypes.CDLL:
    """The kernels from the cache, or made now; where the cache cannot be written, for this process alone."""
    path = user_cache() / f"lrn-{_key(command)}.so"
    if path.exists():
        return ctypes.CDLL(str(path))
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent if os.access(path.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        made = Path(place) / path.name
        subprocess.run([*command, "-o", str(made), str(SOURCE)], check=True, capture_output=True)
        library = ctypes.CDLL(str(made))
        if folder is not None:
            made.replace(path)
    return library


def _key(command: list[str]) -> str:
    """Changes with the source, the compiler, and the processor that `native` stands for."""
    macros = subprocess.run([*command, "-dM", "-E", "-x", "c++", os.devnull], check=True, capture_output=True).stdout
    return hashlib.sha256(b"\n".join([SOURCE.read_bytes(), macros, *map(os.fsencode, command)])).hexdigest()[:16]
