"""Tensors by name, as PyTorch programs keep them: in safetensors files or pickled by torch; ours and torchvision's."""

import io
import pickle
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from repro.errors import UserError
from repro.model import Network
from repro.weights import torchvision


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The weights of a safetensors file."""
    return _by_layer(safetensors.torch.load_file(path))


def read_torch(path: Path) -> dict[str, Tensor]:
    """The weights of what `torch.save` made of a state dict. UserError where it holds anything else."""
    try:
        with path.open("rb") as file:  # of a path torch would go by the suffix
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(f"{path}: asks for {refused[1]}, which is no part of weights: refused") from error
        raise
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise UserError(f"{path}: made by torch, but not a state dict: save network.state_dict() alone")
    return _by_layer(state)


def safetensors_bytes(network: Network) -> bytes:
    """A safetensors file that `load_state_dict` of the same network takes."""
    return safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})


def torchvision_bytes(network: Network) -> bytes:
    """A file for `torchvision.models.alexnet`. UserError where the network has other layers."""
    file = io.BytesIO()
    torch.save(torchvision.to_torchvision(network), file)
    return file.getvalue()


def _by_layer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our own names less the part of the network that comes first, `features` or `classifier`."""
    if torchvision.recognises(state):
        return torchvision.from_torchvision(state)
    return {name.partition(".")[2]: tensor for name, tensor in state.items()}
