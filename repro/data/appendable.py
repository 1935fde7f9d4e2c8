"""A .npy file that grows row by row; a kill at any moment leaves the rows that were counted before."""

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

READ_BYTES = 2**24  # at a time


@dataclass
class AppendableArray:
    """An array of `rows` items of shape `item`; the file is readable by numpy once `close` has been called."""

    path: Path
    dtype: str
    item: tuple[int, ...]
    rows: int = 0
    _hash: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def digest(self) -> str:
        """sha256 of the rows as they were appended."""
        return str(self._hash.hexdigest())

    def restore(self, rows: int, digest: str) -> bool:
        """Goes back to so many rows that an earlier process appended; whether the file holds them. Raises OSError."""
        self.rows = rows
        left = self._end() - len(self._header())
        if left:
            with self.path.open("rb") as file:
                file.seek(len(self._header()))
                while left and (content := file.read(min(left, READ_BYTES))):
                    self._hash.update(content)
                    left -= len(content)
        return not left and self.digest == digest

    def append(self, content: bytes) -> None:
        """Writes whole rows behind the others and waits until they are on disk."""
        with self._open() as file:
            file.seek(self._end())
            file.write(content)
            sync(file)
        self.rows += len(content) // self._row_bytes()
        self._hash.update(content)

    def close(self) -> None:
        """Cuts off what was not counted and writes the header."""
        with self._open() as file:
            file.truncate(self._end())
            file.write(self._header())
            sync(file)

    def _open(self) -> IO[bytes]:
        return self.path.open("r+b" if self.path.exists() else "x+b")

    def _row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.item, dtype=np.int64))

    def _header(self) -> bytes:
        """Makes the header of the .npy file, in which numpy leaves room for a longer first axis."""
        stream = io.BytesIO()
        shape = (self.rows, *self.item)
        np.lib.format.write_array_header_1_0(stream, {"descr": self.dtype, "fortran_order": False, "shape": shape})
        return stream.getvalue()

    def _end(self) -> int:
        return len(self._header()) + self.rows * self._row_bytes()


def sync(file: IO[bytes]) -> None:
    """Waits until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())
