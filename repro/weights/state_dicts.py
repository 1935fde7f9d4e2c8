"""State dicts as programs keep them: wrapped in checkpoints and in modules, under torchvision's names or ours."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from repro.errors import UserError
from repro.weights import torchvision
from repro.weights.names import listed, shown
from repro.weights.stored import Stored

PARTS = ("features", "classifier")
KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_OURS = re.compile(r"(conv|local|fc|norm)\d+")

LONGEST_NAME = 1000  # characters; what is longer, or nested so deep, is no layer's

Held = Tensor | Stored


def network_in(saved: Any, path: Path) -> dict[str, Held]:
    """The tensors of the one network in a saved value, by our name of the layer: `conv1.weight`.

    What stands before a layer's name (`state_dict`, `module.`, `_orig_mod.`, `features.module.`) is told by the known
    names behind it, however many programs have added to it. Of a model and its moving average (EMA) the average is
    taken, as timm does when it loads a checkpoint. UserError where there is no such network, or more than one.
    """
    networks: dict[str, dict[str, Held]] = {}
    others: dict[str, Held] = {}
    for name, tensor in _tensors(saved):
        outer, own = _split(name)
        if own is None:
            others[name] = tensor
        elif networks.setdefault(outer, {}).setdefault(own, tensor) is not tensor:
            raise UserError(f"{path}: holds {own} twice ({shown(name)}): save one of them alone")
    whole = [outer for outer, held in networks.items() if _is_whole(held)]
    if not whole:
        known = "torchvision's (features.0.weight) and ours (features.conv1.weight)"
        found = listed(name for name, _ in _tensors(saved))
        raise UserError(f"{path}: no state dict of AlexNet: known names are {known}, it holds {found}")
    outer = _chosen(whole, path)
    beside = {name.removeprefix(outer): tensor for name, tensor in others.items() if name.startswith(outer)}
    return networks[outer] | {name: tensor for name, tensor in beside.items() if "/" not in name}


def _is_whole(names: Iterable[str]) -> bool:
    """Tells whether there are both convolutions and fully connected layers."""
    return {"conv", "fc"} <= {kind for name in names for kind in ("conv", "fc") if name.startswith(kind)}


def _chosen(networks: list[str], path: Path) -> str:
    """Finds what stands before the names of the network that is meant."""
    averages = [outer for outer in networks if "ema" in re.split(r"[./_]", outer)]
    among = averages or networks
    if len(among) > 1:
        names = listed(outer.strip("./") or "top level" for outer in among)
        raise UserError(f"{path}: holds several networks ({names}): save the state dict of one of them alone")
    return among[0]


def _tensors(saved: Any) -> Iterator[tuple[str, Held]]:
    """Name and tensor; keys of nested dicts are joined by `/`. Each dict once, for a file can put one into itself."""
    waiting: list[tuple[str, Any]] = [("", saved)]
    seen: set[int] = set()
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Held):
            yield place, value
        elif isinstance(value, dict) and id(value) not in seen and len(place) < LONGEST_NAME:
            seen.add(id(value))
            before = f"{place}/" if place else ""
            waiting += [(before + key, held) for key, held in reversed(value.items()) if isinstance(key, str)]


def _split(name: str) -> tuple[str, str | None]:
    """Parts a name into what stands before the layer's own, and our name of its tensor; None where no layer has it.

    `state_dict/module.features.module.0.weight` gives `state_dict/module.` and `conv1.weight`.
    """
    *steps, kind = re.split(r"[./]", name[:LONGEST_NAME])
    start = max((place for place, step in enumerate(steps) if step in PARTS), default=None)
    part = "" if start is None else steps[start]
    below = steps if start is None else steps[start + 1 :]
    layer = next((step for step in below if _OURS.fullmatch(step) or (part and step.isdigit())), None)
    if layer is None and part:
        layer = ".".join(below)
    if not layer or kind not in KINDS:
        return "", None
    first = steps.index(layer) if start is None else start
    theirs = f"{part}.{layer}"
    known = torchvision.LAYERS.get(theirs, layer if _OURS.fullmatch(layer) else theirs)
    return name[: sum(len(step) + 1 for step in steps[:first])], f"{known}.{kind}"
