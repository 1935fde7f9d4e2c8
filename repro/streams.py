"""Standard streams that outlast what they lead to: a run goes on when its terminal, its pipe or its disk does not."""

import io
import os
import select
import sys
from typing import Any

ASKING = frozenset(("-h", "--help", "-c", "--cfg", "-i", "--info", "--hydra-help", "--version"))
"""Options of a command that answers, and makes no run: where its answer is lost, it has failed."""

LONGEST_WAIT = 10.0
"""Seconds that a run waits for the reader of a full pipe that is set not to wait by itself."""


class _Outlasting(io.RawIOBase):
    """A stream of bytes that drops what cannot be written."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.handle

    def isatty(self) -> bool:
        return os.isatty(self.handle)

    def write(self, content: Any) -> int:
        try:
            return self._written(content)
        except OSError:
            return memoryview(content).nbytes

    def _written(self, content: Any) -> int:
        while True:
            try:
                return os.write(self.handle, content)
            except BlockingIOError:  # full, and set so that nobody waits for its reader
                if not select.select((), (self.handle,), (), LONGEST_WAIT)[1]:
                    raise


def outlast() -> None:
    """Puts such streams in the place of stdout and stderr, closed ones too."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file to be opened would take their place
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)


def _stream(before: object, handle: int) -> io.TextIOWrapper:
    raw = _Outlasting(handle)
    lines = handle == 2 or raw.isatty()
    encoding = before.encoding if isinstance(before, io.TextIOWrapper) else "utf-8"
    unbuffered = isinstance(before, io.TextIOWrapper) and before.write_through
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=lines, write_through=unbuffered
    )


def escape() -> None:
    """Makes stdout and stderr write as `\\u....` what their encoding lacks, of names that are no UTF-8 too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
