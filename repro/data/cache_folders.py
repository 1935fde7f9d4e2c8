"""The folders in which packed images are kept."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from repro.command import expanded
from repro.config import DataConfig
from repro.errors import UserError
from repro.files import user_caches, writable

LOCK = ".lock"


def possible_places(config: DataConfig, root: Path | None, name: str) -> list[Path]:
    """data.cache alone, else next to the data in `root`, then with the user's caches; `name` is a file or a folder.

    Raises UserError where there is none at all.
    """
    if config.cache:
        return [expanded(config.cache, "data.cache") / name]
    elsewhere = user_caches()
    if root is not None:
        copy = f"{name}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]}"
        return [root / ".repro-cache" / name, *(folder / copy for folder in elsewhere)]
    if not elsewhere:
        raise UserError("this user has neither a home folder nor a temporary one: set data.cache to a folder")
    return [folder / name for folder in elsewhere]


def first_writable(folders: Sequence[Path]) -> Path:
    """Chooses where to make it; the first of all where none can be written, which will say why."""
    return next((folder for folder in folders if writable(folder) and _lockable(folder)), folders[0])


def _lockable(folder: Path) -> bool:
    """A folder that many may write in can hold a lock that is another user's."""
    lock = folder / LOCK
    return not lock.exists() or os.access(lock, os.R_OK | os.W_OK)
