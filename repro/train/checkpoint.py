"""Where a killed run goes on: one file an epoch, replaced atomically."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repro.errors import RunFailure, UserError

NAME = "checkpoint.pt"
WEIGHTS = "weights.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the checkpoint of a run. RunFailure where the disk is full or read-only."""
    _replace(folder / NAME, state)


def finish(folder: Path, network: nn.Module) -> None:
    """Keeps the weights of a run that has ended, and removes its checkpoint."""
    _replace(folder / WEIGHTS, network.state_dict())
    delete(folder)


def _replace(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
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
        raise UserError(f"{path}: the checkpoint is of another configuration or other images: {remedy}")
    return state


def delete(folder: Path) -> None:
    """Removes a checkpoint that is no longer needed."""
    (folder / NAME).unlink(missing_ok=True)
