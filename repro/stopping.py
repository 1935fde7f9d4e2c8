"""Signals that end a command like Ctrl-C does: with one line, what there is filed, and 128 + their number.

At most moments there is nothing to file, and the process leaves at once: an exception in the middle of an import would
come out as another one. Where a run is made it is `Stopped`, which the run takes to file its record.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT")
    if hasattr(signal, name)  # Windows has few of them
)
TOGETHER = 1.0  # seconds
"""Signals this close are one: Ctrl-C pressed twice means one end, and so do a terminal and a parent that both tell."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass
class _State:
    process: int = 0
    """Which one listens: others may have been forked from it, with its handlers."""
    raising: bool = False
    holding: int = 0
    waiting: int | None = None
    """A signal that came while they were held."""
    last: float = -TOGETHER
    """When one came, on the clock of `time.monotonic`."""
    code: int | None = None
    """Exit code of the command once it has ended."""


_state = _State()


def listen() -> None:
    """Lets signals end the process as told above; those that are ignored stay so (nohup, a shell's `&`)."""
    _state.process = os.getpid()
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def end(code: int) -> int:
    """The exit code of a command that has ended, which no signal changes any more.

    The interpreter gives signals back to the system before it is gone: one that comes then would end the process.
    """
    _state.code = code
    for number in SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_IGN)
    return code


@contextmanager
def raised() -> Iterator[None]:
    """Raises signals as `Stopped` within the block."""
    before, _state.raising = _state.raising, True
    try:
        yield
    finally:
        _state.raising = before


@contextmanager
def held() -> Iterator[None]:
    """Holds `Stopped` back to the end of what must not be cut off."""
    _state.holding += 1
    try:
        yield
    finally:
        _state.holding -= 1
        if _state.waiting is not None and not _state.holding:
            number, _state.waiting = _state.waiting, None
            raise Stopped(number)  # even where the block failed: else the signal would be forgotten


def code_of(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that this ended."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def is_stop(code: int) -> bool:
    """Tells whether an exit code is that of a command that a signal ended."""
    return code - 128 in SIGNALS


def words(code: int) -> str:
    """The line of a command that ends with such a code."""
    name = signal.Signals(code - 128).name
    return "interrupted" if name == "SIGINT" else f"stopped by {name}"


def _stop(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _state.process:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if not _state.raising:
        _leave(number)
    now = time.monotonic()
    if now - _state.last < TOGETHER:
        return
    _state.last = now
    if _state.holding:
        _state.waiting = number
    else:
        raise Stopped(number)


def _leave(number: int) -> None:
    code = 128 + number if _state.code is None else _state.code
    with suppress(Exception):  # the signal may have come in the middle of a write
        sys.stdout.flush()
        if _state.code is None:
            print(words(code), file=sys.stderr, flush=True)
    os._exit(code)
