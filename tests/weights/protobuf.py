"""Caffe's files written byte by byte, as the encoding of protocol buffers has it; no library and no definitions."""

from collections.abc import Iterable, Mapping

import numpy as np

Blobs = Mapping[str, Iterable[np.ndarray]]
"""Weights and biases by layer."""


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values: np.ndarray) -> bytes:
    """Since 2015: `shape` (7), then `data` (5)."""
    dims = b"".join(map(varint, values.shape))
    return field(7, field(1, dims)) + field(5, values.astype("<f4").tobytes())


def old_blob(values: np.ndarray) -> bytes:
    """Before: `num`, `channels`, `height`, `width` (1 to 4); a matrix is (1, 1, rows, columns)."""
    shape = (1,) * (4 - values.ndim) + values.shape
    return b"".join(field(1 + axis, size) for axis, size in enumerate(shape)) + field(5, values.astype("<f4").tobytes())


def model(layers: Blobs) -> bytes:
    """`layer` (100): name 1, type 2 in words, blobs 7; first the data layer, which has none."""
    message = field(1, b"AlexNet") + field(100, field(1, b"data") + field(2, b"Input"))
    for name, blobs in layers.items():
        kind = b"Convolution" if name.startswith("conv") else b"InnerProduct"
        parts = (field(7, blob(values)) for values in blobs)
        message += field(100, field(1, name.encode()) + field(2, kind) + b"".join(parts))
    return message


def old_model(layers: Blobs) -> bytes:
    """`layers` (2): bottom 2, name 4, type 5 as a number, blobs 6."""
    message = field(1, b"CaffeNet")
    for name, blobs in layers.items():
        kind = 4 if name.startswith("conv") else 14
        parts = (field(6, old_blob(values)) for values in blobs)
        message += field(2, field(2, b"below") + field(4, name.encode()) + field(5, kind) + b"".join(parts))
    return message
