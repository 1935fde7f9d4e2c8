"""Failures at a chosen moment."""

from typing import Any

import pytest


class Kill(BaseException):
    """Stands for SIGKILL: no handler of the code under test may run on it."""


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, error: BaseException) -> None:
    """Makes the `call`-th call of a function raise instead."""
    original, calls = getattr(owner, name), [0]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)
