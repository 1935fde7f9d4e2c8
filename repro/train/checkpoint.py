"""Where a killed run goes on: one file an epoch, replaced atomically; and the weights that a run leaves."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from repro.errors import RunFailure, UserError
from repro.model import Network
from repro.weights.own import Origin, to_bytes

NAME = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the checkpoint of a run. RunFailure where the disk is full or read-only."""
    _replace(folder / NAME, lambda file: torch.save(state, file))


def finish(folder: Path, network: Network, origin: Origin) -> None:
    """Keeps the weights of a run that has ended, with what using them needs, and removes its checkpoint."""
    content = to_bytes(network, origin)
    _replace(folder / WEIGHTS, lambda file: file.write(content))
    delete(folder)


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else "the disk may be full"
        remedy = "make room, then give the same command again"
        raise RunFailure(f"{path}: cannot be written ({reason}): {remedy}") from error


def load(folder: Path, identity: dict[str, str]) -> dict[str, Any] | None:
    """The checkpoint of a run, or None where there is none.

    `identity` holds what it must agree with. UserError where it does not, or where the file cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    remedy = "delete it to start over, or give force=true"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch and pickle raise
        raise UserError(f"{path}: the checkpoint is damaged and cannot be read: {remedy}") from error
    if not isinstance(state, dict) or {key: state.get(key) for key in identity} != identity:
        raise UserError(f"{path}: the checkpoint is of another configuration, other images or other code: {remedy}")
    return state


def delete(folder: Path) -> None:
    """Removes a checkpoint that is no longer needed."""
    (folder / NAME).unlink(missing_ok=True)
