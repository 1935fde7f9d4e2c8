"""Files that are whole at every moment, whatever is killed when; and the folders of the user's caches."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES
from pathlib import Path
from typing import IO


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the place of another one when the block ends well, and is gone when it does not."""
    new = unfinished(path)
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except Exception:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> Path:
    """Returns the file that `replacing` writes; a kill may leave it."""
    return path.with_name(f".{path.name}.new")


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


def escaped(text: str) -> str:
    """The text with `\\udc..` for each byte of a file's name that is no UTF-8, which no file of text can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def user_caches() -> list[Path]:
    """Lists the folders in which this package keeps what it can make again, the best first.

    With the user's caches; where there is no home, or one that is another's (as in containers that run under a number),
    also in the temporary folder, if one of this user's own can be had there.
    """
    try:
        places = [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "repro"]
    except RuntimeError:  # no home
        places = []
    if not places or not writable(places[0]):
        with suppress(OSError):
            places.append(_own_temporary_folder())
    return places


def _own_temporary_folder() -> Path:
    """One that nobody else writes in: what is loaded from it runs. Raises OSError where another's is in the way."""
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / ("repro" if user is None else f"repro-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (user is not None and (found.st_uid != user or found.st_mode & 0o022)):
        raise PermissionError(EACCES, "another user's", str(folder))
    return folder


def is_file(path: Path) -> bool:
    """Tells whether a path is a file that this user may see; pathlib's own raises where a folder cannot be searched."""
    try:
        return path.is_file()
    except OSError:
        return False


def writable(folder: Path) -> bool:
    """Tells whether this user can write in a folder, or make it."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except OSError:  # a folder on the way to it cannot be searched
        return False


@contextmanager
def in_utf8(path: Path) -> Iterator[Path]:
    """The path, or a link to it where its name is no UTF-8, for a library that takes nothing else."""
    if escaped(str(path)) == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.absolute())
        yield link
