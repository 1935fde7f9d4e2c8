"""The images of a store: squares as they are, or as JPEG files one behind the other in one array.

Chroma is kept at half the resolution (4:2:0), as in most of ILSVRC's own files. simplejpeg decodes with the slow, exact
transform of libjpeg-turbo, so the pixels are the same everywhere; it took 0.8 of torchvision.io's time on 256-pixel
squares, half of Pillow's, and writes the array's layout at once.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import simplejpeg

from repro.errors import RunFailure


class ImageArray(Protocol):
    """Images (M, S, S, 3) uint8, indexed as an array is: `images[index, top:bottom, left:right]`.

    Memory-mapped arrays, JPEG files, and tensors on a GPU are such.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, S, S, 3)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, where: Any, /) -> Any:
        """Some of them, or a part of one."""
        ...


def encode(square: np.ndarray, quality: int) -> bytes:
    """One square (S, S, 3) uint8 as a JPEG file."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(square), quality, colorsubsampling="420"))


@dataclass(frozen=True)
class JpegSquares:
    """ImageArray (M, S, S, 3) uint8, each decoded when it is looked at; read as an array is, by its first axis.

    `encoded` (B,) uint8 are the files, `ends` (M,) int64 says where each one ends.
    """

    encoded: np.ndarray
    ends: np.ndarray
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, S, S, 3)."""
        return len(self.ends), self.size, self.size, 3

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, where: Any) -> np.ndarray:
        """`[index]` or `[start:stop]`, and rows and columns behind it. Raises RunFailure for a damaged file."""
        first, *rest = where if isinstance(where, tuple) else (where,)
        if isinstance(first, slice):
            squares = np.stack([self._decode(index) for index in range(*first.indices(len(self.ends)))])
            return squares[(slice(None), *rest)]
        return self._decode(first)[tuple(rest)]

    def _decode(self, index: int) -> np.ndarray:
        start = self.ends[index - 1] if index else 0
        try:
            square: np.ndarray = simplejpeg.decode_jpeg(self.encoded[start : self.ends[index]])
        except ValueError as error:
            remedy = "python -m repro.prepare with verify=true packs a damaged store again"
            raise RunFailure(f"packed image {index} cannot be decoded ({error}): {remedy}") from error
        return square


def as_squares(images: np.ndarray, ends: np.ndarray | None, size: int) -> ImageArray:
    """The images of one split from its arrays; `ends` only of JPEG files."""
    return images if ends is None else JpegSquares(images, ends, size)
