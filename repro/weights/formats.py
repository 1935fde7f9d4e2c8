"""The formats of weights, told by a file's content, and the way from there into a network."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor

from repro.config import Config
from repro.errors import UserError
from repro.files import in_utf8, replace_file
from repro.model import Network, build
from repro.weights import caffe, cuda_convnet, foreign, own, torch_files, torchvision
from repro.weights.names import listed, shown
from repro.weights.state_dicts import Held, network_in
from repro.weights.stored import Stored

Weights = dict[str, Tensor]
"""By the paper's name of the layer: `conv1.weight` (96, 3, 11, 11), `fc6.bias` (4096,)."""

Reader = Callable[[Path], Mapping[str, Held]]
_Result = TypeVar("_Result")

_START = 512  # bytes: a tar archive's header


def load_into(path: Path, network: Network, new_classes: bool = False) -> None:
    """Puts the weights of a file into a network. UserError where they do not fit, or the file cannot be read.

    With `new_classes` the last layer keeps its own weights where the file has another number of classes. A network
    that the weights do not fit stays as it was.
    """
    given = read(path)
    for name, tensor in given.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{path}: {name} holds numbers that are not finite: its training diverged, or it is damaged"
            )
    states = _by_layer(network)
    fresh = _check(path, given, states, _last(network) if new_classes else None)
    for name, tensor in states.items():
        if not (fresh and name.startswith(f"{fresh}.")):
            tensor.copy_(given[name])


def check(path: Path, config: Config, classes: Callable[[], int], new_classes: bool = False) -> str | None:
    """Tells whether a file's weights fit the network of a configuration, before any image is read or weight drawn.

    `classes` counts those of the images, once the file is known to hold weights. Returns a line where the last layer's
    weights are left out, see `load_into`. UserError as there.
    """
    given = _guarded(path, lambda reader: reader(path))
    with torch.device("meta"):
        network = build(config, count := classes())
    fresh = _check(path, given, _by_layer(network), _last(network) if new_classes else None)
    if fresh is None:
        return None
    found = given[f"{fresh}.weight"].shape[0]
    return f"{path.name}: {fresh} has {found} classes, the images {count}: it starts from random weights"


def read(path: Path) -> Weights:
    """The weights of a file. UserError where it is missing, unknown, damaged, or asks for code."""
    return _guarded(path, lambda reader: {name: _tensor(held) for name, held in reader(path).items()})


def _guarded(path: Path, use: Callable[[Reader], _Result]) -> _Result:
    """Calls `use` with the reader of a file's format; whatever is wrong with the file is a UserError."""
    kind, reader = _recognise(path)
    try:
        return use(reader)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes pickle, torch, zipfile, protobuf or numpy raise
        raise UserError(f"{path}: looks like {kind}, but is cut short or damaged: get it again") from error


def save(path: Path, network: Network) -> None:
    """Writes `.safetensors` with our names, or `.pth` with those of torchvision's `alexnet`. UserError otherwise."""
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(f"{path}: weights are written as .safetensors, or as .pth for torchvision")
    ours = path.suffix == ".safetensors"
    content = own.to_bytes(network) if ours else torchvision.to_bytes(network)
    try:
        replace_file(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): choose another place") from error


def fingerprint(path: Path) -> str:
    """`alexnet.pth@1a2b3c4d5e6f`: the file's name and the start of its SHA-256. UserError where it cannot be read."""
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a device, which may never end
        raise UserError(f"{path}: is no file: give the path of a file of weights")
    try:
        with path.open("rb") as file:
            return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    except OSError as error:
        raise _unreadable(path, error) from error


# ---- which format ----------------------------------------------------------------------------------------------------


def _recognise(path: Path) -> tuple[str, Reader]:
    """Tells what a file is, in words, and what reads it."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError as error:
        raise _unreadable(path, error) from error
    if start[4:9] == b"\0\0\0\0{":  # the header's length in eight bytes, then the header in JSON
        return "a safetensors file", _read_safetensors
    if start.startswith(b"PK"):
        return _recognise_zip(path)
    if torch_files.recognises(start):
        return "a file of torch", _read_torch
    if start.startswith(b"\x80"):  # pickle, protocol 2 or later
        return "a checkpoint of cuda-convnet", cuda_convnet.read
    if caffe.recognises(path):
        return "a Caffe model", caffe.read
    raise foreign.refusal(path, start)


def _recognise_zip(path: Path) -> tuple[str, Reader]:
    try:
        with zipfile.ZipFile(path) as archive:
            if cuda_convnet.ZIP_MEMBER in archive.namelist():
                return "a checkpoint of cuda-convnet", cuda_convnet.read
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        pass  # reading it will say so
    return "a file of torch", _read_torch


def _read_safetensors(path: Path) -> dict[str, Held]:
    with in_utf8(path) as readable:
        tensors = safetensors.torch.load_file(readable)
    return network_in({name: tensor for name, tensor in tensors.items() if not name.startswith(own.IMAGES)}, path)


def _read_torch(path: Path) -> dict[str, Held]:
    return network_in(torch_files.read(path), path)


def _tensor(held: Held) -> Tensor:
    return held.tensor() if isinstance(held, Stored) else held


def _dtype(held: Held) -> torch.dtype:
    return held.storage.dtype if isinstance(held, Stored) else held.dtype


# ---- what fits -------------------------------------------------------------------------------------------------------


def _by_layer(network: Network) -> Weights:
    """A network's tensors by our names, less the part of the network that comes first: features or classifier."""
    return {name.partition(".")[2]: tensor for name, tensor in network.state_dict().items()}


def _last(network: Network) -> str:
    return list(network.weight_layers())[-1]


def _check(path: Path, given: Mapping[str, Held], states: Weights, may_differ: str | None) -> str | None:
    """The layer of `may_differ` where only its number of classes is another; UserError where anything else is."""
    fresh = None
    for name, tensor in states.items():
        layer, _, kind = name.rpartition(".")
        if name not in given:
            raise UserError(f"{path}: layer {layer}: no {kind} in the file, which has {_layers(given)}")
        if tensor.is_floating_point() and not _dtype(given[name]).is_floating_point:
            kept = str(_dtype(given[name])).removeprefix("torch.")
            raise UserError(f"{path}: layer {layer}: {kind} of {kept}: save the weights as floating-point numbers")
        if given[name].shape == tensor.shape:
            continue
        if layer == may_differ and given[name].shape[1:] == tensor.shape[1:]:
            fresh = layer
            continue
        sizes = f"{_size(given[name])} in the file, {_size(tensor)} in the network"
        raise UserError(f"{path}: layer {layer}: {kind} {sizes}: choose the recipe and setup of these weights")
    if more := given.keys() - states.keys():
        layer = min(more).rpartition(".")[0] or min(more)
        raise UserError(
            f"{path}: layer {shown(layer)}: in the file, but not in the network, which has {_layers(states)}"
        )
    return fresh


def _layers(names: Iterable[str]) -> str:
    return listed(sorted({name.rpartition(".")[0] for name in names}))


def _size(tensor: Held) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _unreadable(path: Path, error: OSError) -> UserError:
    of_record = re.fullmatch(r".+@[0-9a-f]{12}", path.name)  # as in a record, or in a command that a table suggests
    what = "the file that has this fingerprint" if of_record else "a file of weights"
    return UserError(f"{path}: cannot be read ({error.strerror}): give the path of {what}")
