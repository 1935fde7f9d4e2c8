"""A process that dies at a chosen change of its files."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interrupting import Kill

EVENTS = (
    *((os, name) for name in ("fsync",)),
    *((Path, name) for name in ("rename", "replace", "unlink", "mkdir")),
    (shutil, "rmtree"),
)
"""What makes a change of files last, or is one."""


@contextmanager
def killed_at(number: int, begin: tuple[Any, str]) -> Iterator[Callable[[], int]]:
    """Kills the process before its event of this number (from 1), counted from the first call of `begin`.

    Gives what counts the events so far.
    """
    count, dead = [-1], [False]

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if dead[0]:  # a dead process changes nothing, whatever cleans up after it here
                raise Kill
            if count[0] >= 0:
                count[0] += 1
                dead[0] = count[0] == number
                if dead[0]:
                    raise Kill
            return original(*arguments, **options)

        return call

    def beginning(*arguments: Any, **options: Any) -> Any:
        count[0] = max(count[0], 0)
        return started(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in EVENTS:
            patch.setattr(owner, name, watched(getattr(owner, name)))
        started = getattr(*begin)
        patch.setattr(*begin, beginning)
        yield lambda: max(count[0], 0)
