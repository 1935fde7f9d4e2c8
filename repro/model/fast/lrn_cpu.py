"""The CPU kernels of LRN, `lrn.cpp`: compiled once for a kind of processor and kept with the user's caches.

Machines of different kinds may share a home folder: each finds its own kernels there.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from repro.distributed import warn
from repro.files import sync_folder, user_caches, writable, write_file
from repro.model.fast.lrn_window import BETA, Window

SOURCE = Path(__file__).with_name("lrn.cpp")
# Inexact shortcuts (-ffast-math) stay off: a NaN must come through, for it is how a run that diverges is known.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
CPUINFO = Path("/proc/cpuinfo")
COMPILERS = (os.environ.get("CXX", ""), "g++", "clang++")


def serves(layer: Window, x: Tensor) -> bool:
    """Tells whether there is a kernel for this layer and tensor (N, C, H, W), and a compiler to make it with."""
    return layer.beta == BETA and x.dtype in _NAMES and x.device.type == "cpu" and _library() is not None


def forward(layer: Window, x: Tensor) -> Tensor:
    """LRN of a dense (N, C, H, W); same shape, type and layout out."""
    return _call("forward", layer, x)


def backward(layer: Window, x: Tensor, gradient: Tensor) -> Tensor:
    """The input's gradient (N, C, H, W) from that of the output, both laid out alike."""
    return _call("backward", layer, x, gradient)


_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class _Window(ctypes.Structure):
    """`Window` of the source."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("count", "columns", "maps", "height", "width")),
        *((name, ctypes.c_long) for name in ("n", "pixels", "channels_last", "after_relu")),
        *((name, ctypes.c_float) for name in ("k", "alpha")),
    )


def _call(name: str, layer: Window, *tensors: Tensor) -> Tensor:
    x, out = tensors[0], torch.empty_like(tensors[0])
    count, maps, height, width = x.shape
    columns = 1 if layer.pixels else layer.columns
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    window = _Window(
        *(count, columns, maps // columns, height, width),
        *(layer.n, layer.pixels, channels_last, layer.after_relu, layer.k, layer.alpha),
    )
    addresses = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (*tensors, out))
    getattr(_library(), f"{name}_{_NAMES[x.dtype]}")(ctypes.byref(window), *addresses)
    return out


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and a line that says why, where they cannot be made."""
    reason = "no C++ compiler: install g++ or clang++, or name one by the environment variable CXX"
    for compiler in filter(shutil.which, COMPILERS):
        for openmp in (["-fopenmp"], []):  # without it they run, on one thread
            try:
                return _load([compiler, *FLAGS, *openmp])
            except (OSError, subprocess.SubprocessError) as error:
                reason = f"{compiler} made none that can be loaded: {_why(error)}"
    warn(f"the compiled CPU kernels of LRN are off, which takes longer ({reason})")
    return None


def _why(error: OSError | subprocess.SubprocessError) -> str:
    """The first line of what the compiler or the system said."""
    said = error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else ""
    return (said.strip() or str(error)).splitlines()[0]


def _load(command: list[str]) -> ctypes.CDLL:
    """The kernels from a cache, or made now; where none can be written, for this process alone."""
    name, places = f"lrn-{_key(command)}", user_caches()
    for kept in (path for place in places for path in _kept(place, name)):
        with suppress(OSError):  # such as this system cannot load: a folder whose files may not run
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        made = Path(temporary) / f"{name}.so"
        subprocess.run([*command, "-o", str(made), str(SOURCE)], check=True, capture_output=True)
        for place in filter(writable, places):
            with suppress(OSError):  # a full disk, for one
                library = ctypes.CDLL(str(_keep(made, place)))
                if place != places[0]:
                    print(f"{places[0]} cannot be written: LRN's kernels are kept in {place}", file=sys.stderr)
                return library
        return ctypes.CDLL(str(made))


def _kept(place: Path, name: str) -> list[Path]:
    """Whole libraries: the end of a name is the hash of the content, for a damaged one would end the process."""
    with suppress(OSError):  # a folder that may not be looked into
        return [path for path in sorted(place.glob(f"{name}-*.so")) if path.stem == _named(name, path)]
    return []


def _named(name: str, library: Path) -> str | None:
    """`name` with the hash of a library's content; None where it cannot be read."""
    with suppress(OSError):
        return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:16]}"
    return None


def _keep(made: Path, place: Path) -> Path:
    """Copies a library into a cache: it is there whole or not at all, whatever is killed when."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{_named(made.stem, made)}.so"
    # Never a name that another process may write to: one that has the file mapped would end by a bus error.
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as temporary:
        new = Path(temporary) / path.name
        write_file(new, made.read_bytes())
        new.replace(path)
    sync_folder(place)
    return path


def _key(command: list[str]) -> str:
    """Changes with the source, the compiler, what it takes `native` for, the processor's features and the C library."""
    macros = subprocess.run([*command, "-dM", "-E", "-x", "c++", os.devnull], check=True, capture_output=True).stdout
    system = [platform.machine(), *platform.libc_ver(), *_features()]
    return hashlib.sha256(
        b"\n".join([SOURCE.read_bytes(), macros, *map(os.fsencode, command), *map(str.encode, system)])
    ).hexdigest()[:16]


def _features() -> list[str]:
    """Names of the instruction sets that this processor has, as Linux lists them; elsewhere none."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    listed = (line.partition(":") for line in lines)
    names = (names for key, _, names in listed if key.strip() in ("flags", "Features"))  # of x86 and ARM
    return sorted(next(names, "").split())
