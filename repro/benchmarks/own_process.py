"""Work in a process of its own, for at most so long: what it dies of harms nobody else."""

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar, cast

from repro.errors import RunFailure, UserError

T = TypeVar("T")
GRACE = 10.0
"""Seconds in which a process that has answered, died or been told to stop must be gone."""


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """Returns what `function(*arguments)` does in a fresh process, which is ended after so many seconds.

    RunFailure where it fails, in one line, where its process dies, as it may of a GPU's error, and where time is up.
    """
    if seconds <= 0:
        raise RunFailure("no time was left")
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise RunFailure(f"it was stopped after {seconds:.0f} s")
        result, reason = here.recv()
        process.join(GRACE)
    except EOFError:
        process.join(GRACE)
        raise RunFailure(f"its process died (exit code {process.exitcode})") from None
    finally:
        here.close()
        _end(process)
    if reason:
        raise RunFailure(reason)
    return cast(T, result)


def _end(process: SpawnProcess) -> None:
    """Lets it clean up behind itself, for it may have started others; a driver's call can be deaf."""
    process.terminate()
    process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join()


def _answer(there: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent this
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        answer = function(*arguments), ""
    except Exception as error:  # the parent tells, in one line
        answer = None, in_one_line(error)
    there.send(answer)


def in_one_line(error: Exception) -> str:
    """Says what an error says, and where it was raised if it is none of ours."""
    if isinstance(error, UserError | RunFailure):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    reason = str(error).partition("\n")[0] or type(error).__name__
    return f"{reason} ({Path(place.filename).name}:{place.lineno})"
