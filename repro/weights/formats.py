"""Which program wrote a file of weights, told by its content, and the way from there into a network."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from repro.errors import UserError
from repro.files import replace_file
from repro.model import Network
from repro.weights import caffe, cuda_convnet, state_dicts

Weights = dict[str, Tensor]
"""By the paper's name of the layer: `conv1.weight` (96, 3, 11, 11), `fc6.bias` (4096,)."""

_TORCH_BEFORE_1_6 = b"\x80\x02\x8a\x0a"  # a pickled number comes first; a checkpoint of cuda-convnet starts with a dict


def load_into(path: Path, network: Network) -> None:
    """Puts the weights of a file into a network. UserError where they do not fit, or the file cannot be read.

    A network that the weights do not fit stays as it was.
    """
    given = read(path)
    own = {name.partition(".")[2]: tensor for name, tensor in network.state_dict().items()}
    _check(path, given, own)
    for name, tensor in own.items():
        tensor.copy_(given[name])


def read(path: Path) -> Weights:
    """The weights of a file. UserError where it is missing, unknown, damaged, or asks for code."""
    kind, reader = _recognise(path)
    try:
        return reader(path)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes pickle, torch, zipfile, protobuf or numpy raise
        raise UserError(f"{path}: looks like {kind}, but is cut short or damaged: get it again") from error


def save(path: Path, network: Network) -> None:
    """Writes `.safetensors` with our names, or `.pth` with those of torchvision's `alexnet`. UserError otherwise."""
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(f"{path}: weights are written as .safetensors, or as .pth for torchvision")
    ours = path.suffix == ".safetensors"
    content = state_dicts.safetensors_bytes(network) if ours else state_dicts.torchvision_bytes(network)
    try:
        replace_file(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): choose another place") from error


def fingerprint(path: Path) -> str:
    """`alexnet.pth@1a2b3c4d5e6f`: the file's name and the start of its SHA-256. UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    except OSError as error:
        raise _unreadable(path, error) from error


def _recognise(path: Path) -> tuple[str, Callable[[Path], Weights]]:
    """What a file is, in words, and what reads it."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise _unreadable(path, error) from error
    if start[4:9] == b"\0\0\0\0{":  # the header's length in eight bytes, then the header in JSON
        return "a safetensors file", state_dicts.read_safetensors
    if start.startswith(b"PK"):
        return _recognise_zip(path)
    if start.startswith(_TORCH_BEFORE_1_6):
        return "a state dict of torch", state_dicts.read_torch
    if start.startswith(b"\x80"):  # pickle, protocol 2 or later
        return "a checkpoint of cuda-convnet", cuda_convnet.read
    if re.match(rb"\n[\x01-\x7f][ -~]|\x12|\xa2\x06", start):  # NetParameter: a name, `layers`, or `layer`
        return "a Caffe model", caffe.read
    kinds = "safetensors, a state dict of torch, a .caffemodel or a checkpoint of cuda-convnet"
    raise UserError(f"{path}: of no known format: give {kinds}")


def _recognise_zip(path: Path) -> tuple[str, Callable[[Path], Weights]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if cuda_convnet.ZIP_MEMBER in archive.namelist():
                return "a checkpoint of cuda-convnet", cuda_convnet.read
    return "a state dict of torch", state_dicts.read_torch


def _check(path: Path, given: Weights, own: Weights) -> None:
    for name, tensor in own.items():
        layer, _, kind = name.rpartition(".")
        if name not in given:
            raise UserError(f"{path}: layer {layer}: no {kind} in the file, which has {_layers(given)}")
        if given[name].shape != tensor.shape:
            sizes = f"{_size(given[name])} in the file, {_size(tensor)} in the network"
            raise UserError(f"{path}: layer {layer}: {kind} {sizes}: choose the recipe and setup of these weights")
    if more := given.keys() - own.keys():
        layer = min(more).rpartition(".")[0]
        raise UserError(f"{path}: layer {layer}: in the file, but not in the network, which has {_layers(own)}")


def _layers(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[0] for name in names})) or "none"


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _unreadable(path: Path, error: OSError) -> UserError:
    of_record = re.fullmatch(r".+@[0-9a-f]{12}", path.name)  # as in a record, or in a command that a table suggests
    what = "the file that has this fingerprint" if of_record else "a file of weights"
    return UserError(f"{path}: cannot be read ({error.strerror}): give the path of {what}")
