"""Pickles as Python 2 and its numpy wrote them: protocol 2, strings of bytes, modules by their old names."""

import io
import pickle
import struct
from typing import Any, ClassVar, NamedTuple

import numpy as np


class Global(NamedTuple):
    """A class or function by name; it need not exist."""

    module: str
    name: str

    def __call__(self) -> None:
        """The pickler wants what it reduces to be callable."""


class Instance(NamedTuple):
    """An object of an old-style class."""

    kind: Global
    attributes: dict[str, Any]


class Reduced(NamedTuple):
    """What a call makes."""

    function: Global
    arguments: tuple[Any, ...]


class Persistent(NamedTuple):
    """What the pickle knows by an id."""

    id: Any


def dumps(value: Any) -> bytes:
    """What `cPickle.dumps(value, 2)` of Python 2 gives."""
    file = io.BytesIO()
    _Pickler(file, protocol=2).dump(value)
    return file.getvalue()


_PythonPickler: Any = pickle._Pickler  # the one written in Python can be changed; its type hints leave most out


class _Pickler(_PythonPickler):
    def save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        head = b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))
        self.write(head + content)
        self.memoize(value)

    def save_name(self, value: Global) -> None:
        self.write(f"c{value.module}\n{value.name}\n".encode())

    def save_instance(self, value: Instance) -> None:
        self.write(pickle.MARK)
        self.save_name(value.kind)
        self.write(pickle.OBJ)
        self.memoize(value)
        self.save(value.attributes)
        self.write(pickle.BUILD)

    def save_reduced(self, value: Reduced) -> None:
        self.save_reduce(*value, obj=value)

    def save_id(self, value: Persistent) -> None:
        self.save(value.id)
        self.write(pickle.BINPERSID)

    def save_dtype(self, value: np.dtype) -> None:
        state = (3, "<", None, None, None, -1, -1, 0)
        self.save_reduce(Global("numpy", "dtype"), (value.str[1:], 0, 1), state=state, obj=value)

    def save_array(self, value: np.ndarray) -> None:
        fortran = bool(value.flags.fnc)
        state = (1, value.shape, value.dtype, fortran, value.tobytes("F" if fortran else "C"))
        empty = (Global("numpy", "ndarray"), (0,), "b")
        self.save_reduce(Global("numpy.core.multiarray", "_reconstruct"), empty, state=state, obj=value)

    dispatch: ClassVar[dict[type, Any]] = {
        **_PythonPickler.dispatch,
        str: save_string,
        bytes: save_string,
        Global: save_name,
        Instance: save_instance,
        Reduced: save_reduced,
        Persistent: save_id,
        np.ndarray: save_array,
        type(np.dtype("f4")): save_dtype,
    }
