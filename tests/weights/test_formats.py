import copy
import errno
import hashlib
import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from repro import weights
from repro.config import Normalization
from repro.errors import UserError
from repro.experiments.compose import compose
from repro.model import Network, build
from repro.weights import formats
from tests.weights import protobuf
from tests.weights.nets import CLASSES, random_network, small_config
from tests.weights.python2 import dumps


@pytest.fixture(scope="module")
def network() -> Network:
    """To be read only."""
    torch.manual_seed(0)
    return random_network(small_config("paper"))


def write_caffe(path: Path, network: Network) -> None:
    layers = {
        name: [tensor.numpy() for tensor in layer.state_dict().values()]
        for name, layer in network.weight_layers().items()
    }
    path.write_bytes(protobuf.model(layers))


WRITERS: dict[str, Callable[[Path, Network], object]] = {
    "safetensors": lambda path, network: weights.save(path, network),
    "torch": lambda path, network: torch.save(network.state_dict(), path),
    "torch before 1.6": lambda path, network: torch.save(
        network.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "Caffe": write_caffe,
    "cuda-convnet": lambda path, network: path.write_bytes(dumps({"model_state": {"layers": [np.zeros(999)]}})),
}


# ---- our own files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [b".", b"caf\xe9"], ids=["utf-8", "latin-1"])
@pytest.mark.parametrize("name", ["safetensors", "torch", "torch before 1.6"])
def test_our_weights_come_back_as_they_were(name: str, folder: bytes, network: Network, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(folder) / "x.safetensors"  # the name says nothing
    path.parent.mkdir(exist_ok=True)
    WRITERS[name](path, network)
    other = random_network(small_config("paper"))
    weights.load_into(path, other)
    for key, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor)


@pytest.mark.parametrize(
    "words",
    [
        ["model.scale=0.0625", "ablation=no_column_links"],
        ["model.scale=0.0625", "model.norm.kind=batch_norm"],
        ["setup=cifar10_13pct", "model.scale=0.25"],
    ],
)
def test_every_kind_of_layer_is_kept(words: list[str], tmp_path: Path) -> None:
    config = compose(words)
    network, other = build(config, CLASSES), build(config, CLASSES)
    if config.model.norm.kind is Normalization.batch_norm:
        network(torch.randn(2, 3, config.crop, config.crop))  # running means of its own
    weights.save(tmp_path / "x.safetensors", network.to(memory_format=torch.channels_last))
    weights.load_into(tmp_path / "x.safetensors", other)
    for key, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor)
    assert load_file(tmp_path / "x.safetensors").keys() == network.state_dict().keys()


def test_a_fingerprint_is_name_and_content(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"content")
    assert weights.fingerprint(path) == f"a.pth@{hashlib.sha256(b'content').hexdigest()[:12]}"


def test_a_device_is_no_file_of_weights() -> None:
    with pytest.raises(UserError, match="/dev/zero: is no file: give the path of a file of weights"):
        weights.fingerprint(Path("/dev/zero"))


def test_weights_are_written_in_two_formats(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"x\.caffemodel: weights are written as \.safetensors, or as \.pth"):
        weights.save(tmp_path / "x.caffemodel", network)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(formats, "replace_file", full)
    with pytest.raises(UserError, match=r"x\.safetensors: cannot be written \(No space left on device\)"):
        weights.save(tmp_path / "x.safetensors", network)


# ---- files that cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_cut_short(name: str, kept: float, network: Network, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    WRITERS[name](path, network)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    kind = name.split()[0]
    with pytest.raises(UserError, match=rf"x\.safetensors: looks like .*{kind}.*, but is cut short or damaged"):
        weights.read(path)


@pytest.mark.parametrize("content", [b"?", b"\n\n\n", b"{}", b"cos\nsystem\n"])
def test_a_file_of_no_known_format(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth: of no known format: give safetensors, .* or a checkpoint of"):
        weights.read(path)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("weights.pth", r"cannot be read \(No such file or directory\): give the path of a file of weights"),
        ("weights.pth@0123456789ab", "give the path of the file that has this fingerprint"),
        (".", r"cannot be read \(Is a directory\)"),
    ],
)
def test_a_file_that_is_not_there(name: str, answer: str, tmp_path: Path) -> None:
    for function in (weights.read, weights.fingerprint):
        with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / name))}: .*{answer}"):
            function(tmp_path / name)


class Evil:
    """What a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_that_asks_for_code(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Evil(tmp_path / "touched")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil\.pth: asks for \w+\.mkdir, which is no part of weights: refused"):
        weights.read(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_asks_for_code(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model_state": Evil(tmp_path / "touched")}, protocol))
    answer = "of no known format" if protocol == 0 else r"asks for \w+\.mkdir, .*: refused"
    with pytest.raises(UserError, match=rf"evil\.pkl: {answer}"):
        weights.read(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (
            {"network": {"conv1.weight": torch.ones(1), "bn1.weight": torch.ones(1)}},
            "network/conv1.weight, network/bn1",
        ),
        ([torch.ones(1)], "none"),
        ({"epoch": 3}, "none"),
        ({f"layer{number}": torch.ones(1) for number in range(99)}, "layer0, .*, layer11 and 87 more"),
    ],
)
def test_a_torch_file_of_something_else(value: Any, held: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=rf"checkpoint\.pt: no state dict of AlexNet: known names .*, it holds {held}"):
        weights.read(tmp_path / "checkpoint.pt")


# ---- weights that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["model.sizes.fc7=2048"], "layer fc7: weight 256 x 256 in the file, 128 x 256 in the network"),
        (["model.columns=1"], "layer conv2: weight 16 x 3 x 5 x 5 in the file, 16 x 6 x 5 x 5 in the network"),
        (
            ["ablation=extra_conv6"],
            "layer conv6: no weight in the file, which has conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8",
        ),
        (
            ["ablation=no_fc7"],
            "layer fc7: in the file, but not in the network, which has conv1, conv2, conv3, conv4, conv5, fc6, fc8",
        ),
    ],
)
def test_the_error_names_layer_and_shapes_and_changes_nothing(
    words: list[str], answer: str, network: Network, tmp_path: Path
) -> None:
    weights.save(tmp_path / "x.safetensors", network)
    small = ["setup=ilsvrc2012", "model.scale=0.0625", "data.crop=96"]
    other = build(compose([*small, *words]), CLASSES)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(UserError, match=rf"x\.safetensors: {answer}"):
        weights.load_into(tmp_path / "x.safetensors", other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_another_number_of_classes(network: Network, tmp_path: Path) -> None:
    weights.save(tmp_path / "x.safetensors", network)
    answer = "layer fc8: weight 10 x 256 in the file, 1000 x 256 in the network: choose the recipe and setup"
    with pytest.raises(UserError, match=answer):
        weights.load_into(tmp_path / "x.safetensors", build(small_config("paper"), 1000))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_no_weights(value: float, network: Network, tmp_path: Path) -> None:
    broken = copy.deepcopy(network)
    with torch.no_grad():
        next(broken.parameters()).view(-1)[7] = value
    weights.save(tmp_path / "x.safetensors", broken)
    with pytest.raises(UserError, match=r"x\.safetensors: conv1\.weight holds numbers that are not finite"):
        weights.load_into(tmp_path / "x.safetensors", copy.deepcopy(network))


@pytest.mark.parametrize("save", [save_file, torch.save])
def test_whole_numbers_are_no_weights(save: Callable[[object, Path], object], network: Network, tmp_path: Path) -> None:
    """Copied into a network they would be taken for weights cut to whole numbers."""
    path = tmp_path / "weights"
    save({name: tensor.to(torch.int8) for name, tensor in network.state_dict().items()}, path)
    with pytest.raises(UserError, match="layer conv1: weight of int8: save the weights as floating-point numbers"):
        weights.load_into(path, random_network(small_config("paper")))
