"""Folders of another user, for tests that the superuser may run, whom permissions do not stop."""

import io
import os
from pathlib import Path
from typing import Any

import pytest


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As if `folder` were of mode 700 and another user's: nothing in it can be looked at, read, written or made."""

    def refusing(call: Any) -> Any:
        def refuse_or_call(path: Any, *arguments: Any, **keywords: Any) -> Any:
            if isinstance(path, str | os.PathLike) and folder in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **keywords)

        return refuse_or_call

    for name in ("stat", "lstat", "scandir", "listdir", "open", "mkdir", "unlink", "rename", "replace"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: folder not in (Path(path), *Path(path).parents) and access(path, mode)
    )
    folder.mkdir(exist_ok=True)


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """As if `file` were of mode 0, until it is replaced."""
    made, opened = file.stat().st_ctime_ns, io.open

    def refuse_or_open(path: Any, *arguments: Any, **keywords: Any) -> Any:
        named = isinstance(path, str | os.PathLike) and Path(path) == file
        if named and file.exists() and file.stat().st_ctime_ns == made:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(io, "open", refuse_or_open)
    monkeypatch.setattr("builtins.open", refuse_or_open)
