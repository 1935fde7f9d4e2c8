"""Checkpoints, from which a killed run goes on: one file an epoch and the one before it; and the weights at its end.

A checkpoint is a file of `torch.save` with the SHA-256 of its bytes behind them, which `torch.load` passes over.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch

from repro import stopping
from repro.errors import RunFailure, UserError
from repro.files import replacing, sync_folder, unfinished
from repro.model import Network
from repro.weights.own import Origin, to_bytes

NAME, BEFORE = "checkpoint.pt", "checkpoint-before.pt"
WEIGHTS = "weights.safetensors"
PARTS = {"network": dict, "optimizer": dict, "schedule": dict, "curve": list}
"""What every checkpoint holds, besides what it must agree with."""
_DIGEST = hashlib.sha256().digest_size
_PIECE = 2**20  # bytes
_REMEDY = "delete it to start over, or give force=true"


def exists(folder: Path) -> bool:
    """Tells whether there is a checkpoint to go on from."""
    return any((folder / name).exists() for name in (NAME, BEFORE))


def save(folder: Path, state: dict[str, Any]) -> None:
    """Adds the checkpoint of a run, and keeps the one before it. RunFailure where the disk is full or read-only.

    A kill or a full disk in the middle leaves that one alone, which is what `settle` then finds.
    """
    with stopping.held():  # torch.save calls back from C++, where an exception would end the process
        with _told(folder / NAME):
            if (folder / NAME).exists():
                (folder / NAME).replace(folder / BEFORE)
        _replace(folder / NAME, lambda file: _write(state, file))


def keep_weights(folder: Path, network: Network, origin: Origin) -> None:
    """Keeps the weights of a run that has ended, with what using them needs. RunFailure as above."""
    content = to_bytes(network, origin)
    _replace(folder / WEIGHTS, lambda file: file.write(content))


class _Hashed:
    """A file that is written once from its beginning to its end, and the SHA-256 of that."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sum = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sum.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _write(state: dict[str, Any], file: IO[bytes]) -> None:
    hashed = _Hashed(file)
    torch.save(state, cast(IO[bytes], hashed))
    file.write(hashed.sum.digest())


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            write(file)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises what the disk refuses as RunFailure."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        reason = error.strerror if isinstance(error, OSError) else "the disk may be full"
        remedy = "make room, then give the same command again"
        raise RunFailure(f"{path}: cannot be written ({reason}): {remedy}") from error


def settle(folder: Path, warn: Callable[[str], object]) -> None:
    """Puts the newest whole checkpoint in its place, and warns where that is not the last one.

    Raises UserError where none is whole. One process calls this before the others read the checkpoint.
    """
    newest, before = folder / NAME, folder / BEFORE
    damaged = newest.exists() and not _is_whole(newest)
    if newest.exists() and not damaged:
        return
    if before.exists() and _is_whole(before):
        before.replace(newest)
        sync_folder(folder)
        if damaged:
            warn(f"{newest}: the checkpoint is damaged, the run goes on from the one before it")
    elif damaged or before.exists():
        raise _damaged(newest if damaged else before)


def _is_whole(path: Path) -> bool:
    """Tells whether a file's last bytes are the SHA-256 of all others. UserError where it cannot be read at all."""
    try:
        sum, left = hashlib.sha256(), path.stat().st_size - _DIGEST
        with path.open("rb") as file:
            while left > 0 and (piece := file.read(min(left, _PIECE))):
                sum.update(piece)
                left -= len(piece)
            return left == 0 and file.read() == sum.digest()
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read ({error.strerror}): move it away") from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: the checkpoint is damaged and cannot be read: {_REMEDY}")


def load(folder: Path, identity: dict[str, str]) -> dict[str, Any] | None:
    """The checkpoint of a run, or None where there is none; see `settle`.

    `identity` holds what it must agree with. UserError where it does not, or where the file cannot be read.
    """
    state = read(folder)
    if state is not None and {key: state.get(key) for key in identity} != identity:
        raise UserError(
            f"{folder / NAME}: the checkpoint is of another configuration, other images or other code: {_REMEDY}"
        )
    return state


def read(folder: Path) -> dict[str, Any] | None:
    """Reads a checkpoint, of whatever run it is; None where there is none. UserError where it cannot be read."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch and pickle raise
        raise _damaged(path) from error
    if not isinstance(state, dict):
        raise _damaged(path)
    for part, kind in PARTS.items():
        if not isinstance(state.get(part), kind):
            raise UserError(f"{path}: the checkpoint has no {part}: {_REMEDY}")
    return state


def epochs(folder: Path) -> int:
    """Counts the epochs of a checkpoint without reading its tensors; 0 where there is none, or a damaged one."""
    for name in (NAME, BEFORE):
        try:
            return len(torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True)["curve"])
        except Exception:  # as above
            continue
    return 0


def delete(folder: Path) -> None:
    """Removes checkpoints that are no longer needed, the last one last, and what a kill left of their writing."""
    for path in (unfinished(folder / NAME), unfinished(folder / WEIGHTS), folder / BEFORE, folder / NAME):
        path.unlink(missing_ok=True)
