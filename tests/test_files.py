from pathlib import Path

import pytest

from repro.files import replace_file
from tests.interrupting import Kill, interrupt


def test_replace_file_is_whole_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.md"
    replace_file(path, b"old")
    interrupt(monkeypatch, Path, "replace", 1, Kill())
    with pytest.raises(Kill):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
