"""Tensors where they lie in a file: known by shape, read when asked for, and never beyond what is there."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.weights.pickles import Sealed

MOST_AXES = 64  # torch's own limit


@dataclass(frozen=True, slots=True)
class Storage(Sealed):
    """`count` numbers of one type from number `start` on; `read` gives all bytes, as many as were declared."""

    dtype: torch.dtype
    start: int
    count: int
    read: Callable[[], bytes | bytearray | memoryview]


@dataclass(frozen=True, slots=True)
class Stored(Sealed):
    """A tensor that lies in a storage, `offset` numbers behind its start, as `shape` and `stride` say."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Its numbers, in memory of their own."""
        storage = self.storage
        content = torch.frombuffer(bytearray(storage.read()), dtype=storage.dtype)
        return content.as_strided(self.shape, self.stride, storage.start + self.offset)


def stored(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored:
    """Makes what torch's own `_rebuild_tensor` does of these arguments. ValueError where they reach out of the storage.

    A file's arguments can be of any type and size.
    """
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    numbers = (offset, *shape, *stride)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not whole or len(shape) != len(stride) or len(shape) > MOST_AXES:
        raise ValueError("a shape that cannot be")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise ValueError("a tensor larger than its storage")
    return Stored(storage, offset, tuple(shape), tuple(stride))
