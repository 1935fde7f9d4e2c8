"""Files that are whole at every moment, whatever is killed when; and the user's cache folder."""

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    write_file(new, content)
    new.replace(path)
    sync_folder(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def user_cache() -> Path:
    """Where this package keeps what it can make again."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home, as in containers that run under a number without a user
        caches = Path(tempfile.gettempdir())
    return caches / "repro"
