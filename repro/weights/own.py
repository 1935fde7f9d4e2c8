"""Our own files of weights, which say beside the weights all that using them needs.

A run's `weights.safetensors` holds the network's state dict, the statistics of the run's images as tensors named
`images.*`, and in its metadata the configuration and the names of the classes as JSON, and which run it was.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from repro.errors import UserError
from repro.experiments.folder import GROUPS, choices
from repro.experiments.naming import plain_settings
from repro.experiments.words import quoted
from repro.files import in_utf8
from repro.model import Network
from repro.weights.names import shown

IMAGES = "images."
"""In front of the names of tensors that are no weights."""
MOST_HEADER = 100 * 2**20
"""Bytes, as in safetensors itself."""
STATISTICS = ("mean", "channel_std", "pca_deviations", "pca_vectors")
"""Those of `ImageData`."""


@dataclass(frozen=True)
class Origin:
    """The origin of a file of weights."""

    record: str
    """The run's place among the records, `<setup>/<recipe>/<ablation>/seed<k>`."""
    config: dict[str, Any]
    """Every setting that tells the run from others, and its recipe, setup and seed: dotted key -> plain value."""
    classes: tuple[str, ...]
    """Their names, in the order of the outputs."""
    statistics: dict[str, np.ndarray]
    """Of the images it was trained on, by the name of the field of `ImageData`."""


def is_whole(path: Path) -> bool:
    """Tells whether there is a file of safetensors as long as its header says; its numbers are not read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MOST_HEADER)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return path.stat().st_size == 8 + length + max(ends)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def to_bytes(network: Network, origin: Origin | None = None) -> bytes:
    """A safetensors file; without an origin, one that `load_state_dict` of the same network takes."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    if origin is None:
        return safetensors.torch.save(tensors)
    for name, values in origin.statistics.items():
        tensors[IMAGES + name] = torch.from_numpy(np.ascontiguousarray(values))
    metadata = {"format": "pt", "record": origin.record}
    metadata |= {"config": json.dumps(origin.config), "classes": json.dumps(origin.classes)}
    return safetensors.torch.save(tensors, metadata)


def read_origin(path: Path) -> Origin | None:
    """Reads what a file says about its weights; None where it is none of ours. UserError where that is damaged."""
    try:
        with in_utf8(path) as readable, safetensors.safe_open(readable, "pt") as file:
            metadata = file.metadata() or {}
            names = [name for name in STATISTICS if IMAGES + name in file.keys()]  # noqa: SIM118, it is no dict
            held = {name: file.get_tensor(IMAGES + name) for name in names}
    except (OSError, safetensors.SafetensorError):
        return None  # another format, or what reading the weights will explain
    if not {"record", "config", "classes"} <= metadata.keys():
        return None
    # NumPy knows no bfloat16
    statistics = {name: (one.float() if one.dtype == torch.bfloat16 else one).numpy() for name, one in held.items()}
    try:
        config, classes = json.loads(metadata["config"]), json.loads(metadata["classes"])
    except (ValueError, RecursionError):
        config = classes = None
    evaluated = "${" in json.dumps(config)  # by OmegaConf, which puts in what the environment says
    if evaluated or not isinstance(config, dict) or not isinstance(classes, list):
        raise UserError(f"{path}: what it says about its run is damaged: get it again")
    return Origin(metadata["record"], config, tuple(map(str, classes)), statistics)


def configuration_words(path: Path, given: Sequence[str]) -> list[str]:
    """The command line of the run that left these weights, less the keys that `given` words set anew.

    Empty for weights of others, and where `given` chooses a setup, recipe or ablation. UserError where the run's own
    setup or recipe is no more.
    """
    keys = {word.partition("=")[0] for word in given}
    if keys & set(GROUPS) or (origin := read_origin(path)) is None:
        return []
    recipe, setup = (str(origin.config.get(group)) for group in ("recipe", "setup"))
    if recipe not in choices("recipe") or setup not in choices("setup"):
        raise UserError(f"{path}: of recipe={shown(recipe)} setup={shown(setup)}, which are not here: give both")
    own = {key: origin.config.get(key, value) for key, value in plain_settings(recipe, setup).items()}
    changed = {key: value for key, value in own.items() if value != plain_settings(recipe, setup)[key]}
    words = [f"{key}={_literal(value)}" for key, value in changed.items() if key not in {*keys, "init_from"}]
    return [f"recipe={recipe}", f"setup={setup}", *words]


def _literal(value: Any) -> str:
    """A plain value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value)
