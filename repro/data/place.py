"""Where what is made from the images is kept."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from repro.config import DataConfig
from repro.files import user_cache


def choose_place(config: DataConfig, root: Path | None, name: str, marker: str = "") -> Path:
    """data.cache, else next to the data in `root`, else (not writable) with the user's caches.

    `name` is of a file, or of a folder that counts once the file `marker` is in it; where one exists, it is chosen.
    """
    if config.cache:
        return Path(config.cache).expanduser() / name
    elsewhere = [user_cache(), Path(tempfile.gettempdir()) / "repro"]
    places = [folder / name for folder in elsewhere]
    if root is not None:
        copy = f"{name}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]}"
        places = [root / ".repro-cache" / name, *(folder / copy for folder in elsewhere)]
    for place in places:
        if (place / marker).exists():
            return place
    chosen = next((place for place in places if _writable(place)), places[0])
    if chosen != places[0]:
        print(f"{places[0]} cannot be written: the packed images go to {chosen}", file=sys.stderr)
    return chosen


def _writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(existing, os.W_OK)
