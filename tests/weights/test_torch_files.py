import argparse
import collections
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repro import weights
from repro.errors import UserError
from repro.model import Network
from repro.weights import cuda_convnet, torch_files
from tests.weights import tar
from tests.weights.nets import random_network, small_config

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> Network:
    """To be read only."""
    torch.manual_seed(0)
    return random_network(small_config("torchvision"))


@pytest.fixture(scope="module")
def state(network: Network) -> State:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_read(path: Path, state: State) -> None:
    found = weights.read(path)
    assert found.keys() == {name.partition(".")[2] for name in state}
    for name, tensor in state.items():
        assert torch.equal(found[name.partition(".")[2]].float(), tensor.float())


# ---- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol(protocol: int, zipped: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_read(path, state)


@pytest.mark.parametrize("wrap", [None, "state_dict"])
def test_the_tar_archives_of_the_first_torch(wrap: str | None, state: State, tmp_path: Path) -> None:
    path = tmp_path / "alexnet.pth"
    path.write_bytes(tar.archive({name: tensor.numpy() for name, tensor in state.items()}, wrap))
    assert_read(path, state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old types
        theirs = torch.load(path, weights_only=False)  # the test's own file: torch must read it as we do
    for name, tensor in (theirs[wrap] if wrap else theirs).items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, zipped: bool, state: State, network: Network, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    short = {name: tensor.to(dtype) for name, tensor in state.items()}
    torch.save(short, path, _use_new_zipfile_serialization=zipped)
    assert_read(path, short)
    other = random_network(small_config("torchvision"))
    weights.load_into(path, other)
    for name, tensor in other.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, short[name].float())


@pytest.mark.parametrize("zipped", [True, False])
def test_parts_of_a_shared_storage_and_other_strides(zipped: bool, state: State, tmp_path: Path) -> None:
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    parts, start = {}, 0
    for name, tensor in state.items():
        parts[name] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    parts["features.conv1.weight"] = state["features.conv1.weight"].to(memory_format=torch.channels_last)
    torch.save(parts, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert_read(tmp_path / "x.pth", state)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def training_checkpoint(state: State) -> dict[str, Any]:
    """As pytorch/examples, torchvision's references and others leave one."""
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    return {
        "epoch": 90,
        "arch": "alexnet",
        "state_dict": collections.OrderedDict(state),
        "best_acc1": torch.tensor(56.5),
        "best": np.float64(56.5),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "args": argparse.Namespace(lr=0.1, data="/data", betas=(0.9, 0.999), path=Path("x")),
        "curve": collections.defaultdict(list, {"loss": [1.0]}),
        "rng": [np.arange(3), {1, 2}, torch.get_rng_state()],
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint(zipped: bool, protocol: int, state: State, tmp_path: Path) -> None:
    """`torch.load(weights_only=True)` refuses its Namespace and numpy's numbers; here they are left out."""
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(training_checkpoint(state), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_read(path, state)


def test_parameters_instead_of_tensors(state: State, tmp_path: Path) -> None:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    next(iter(parameters.values())).sharded = False  # an attribute of somebody's
    torch.save(parameters, tmp_path / "x.pth")
    assert_read(tmp_path / "x.pth", state)


class Net(torch.nn.Sequential):
    """Somebody's module."""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("wrap", "code"),
    [
        (lambda net: net, "torch.load('whole.pth', weights_only=False).state_dict()"),
        (lambda net: {"epoch": 1, "model": net}, "torch.load('whole.pth', weights_only=False)['model'].state_dict()"),
    ],
)
def test_a_whole_model_is_refused_with_the_code_that_helps(
    wrap: Callable[[Any], Any], code: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["features.0", "classifier.6"]
    net = Net(collections.OrderedDict((name.replace(".", "_"), torch.nn.Linear(2, 2)) for name in names))
    torch.save(wrap(net), "whole.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as refused:
        weights.read(Path("whole.pth"))
    line = str(refused.value)
    start = f"whole.pth: asks for {__name__}.Net, which is no part of weights: where you trust it, save its state dict"
    assert line.startswith(start)
    assert line.endswith(f" alone: torch.save({code}, 'weights.pth')")
    exec(line.rpartition(" alone: ")[2], {"torch": torch})  # the advice is code that runs
    assert torch.load("weights.pth", weights_only=True).keys() == net.state_dict().keys()


def test_a_torchscript_program_is_refused_with_the_code_that_helps(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its deprecation
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(
        UserError, match=r"x\.pt: a TorchScript program: .*torch\.jit\.load\('.*/x\.pt'\)\.state_dict\(\)"
    ):
        weights.read(tmp_path / "x.pt")


def test_an_optimizers_state_is_not_read(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(7)}}}}, path)
    read = []
    entry = torch_files._entry
    monkeypatch.setattr(torch_files, "_entry", lambda *place: read.append(place) or entry(*place))
    weights.read(path)
    assert len(read) == len(state)


# ---- sizes that a file only claims -----------------------------------------------------------------------------------


def rewritten(state: State, old: bytes, new: bytes) -> bytes:
    """A zip archive whose pickle says something else."""
    file, out = io.BytesIO(), io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(out, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                assert old in content
                content = content.replace(old, new)
            changed.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x06tq", b"J\x00\x00\x00\x10tq"),  # 2^28 numbers in a storage of 6
        (b"K\x02K\x03\x86", b"K\x02J\x00\x00\x00\x10\x86"),  # a tensor of 2 x 2^28 in it
        (b"K\x03K\x01\x86", b"J\x00\x00\x00\x10K\x01\x86"),  # a stride out of it
        (b"K\x03K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86"),  # one to the left
        (b"K\x03K\x01\x86", b"K\x00K\x00\x86"),  # not wrong, but a tensor of one number
    ],
)
def test_a_tensor_stays_in_its_storage(old: bytes, new: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = {"conv1.weight": torch.arange(6.0).view(2, 3), "fc6.weight": torch.ones(1)}
    path.write_bytes(rewritten(state, old, new))
    if new == b"K\x00K\x00\x86":
        assert weights.read(path)["conv1.weight"].tolist() == [[0.0] * 3] * 2
        return
    with pytest.raises(UserError, match=r"x\.pth: looks like a file of torch, but is cut short or damaged"):
        weights.read(path)


def test_an_archive_that_would_grow_out_of_proportion(tmp_path: Path) -> None:
    for name, member in (("torch", "archive/data.pkl"), ("cuda-convnet", cuda_convnet.ZIP_MEMBER)):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, pickle.dumps({"x": bytes(2**20)}, 2))
        with pytest.raises(UserError, match="is cut short or damaged") as refused:
            weights.read(path)
        assert "out of proportion" in str(refused.value.__cause__)


def test_archives_of_others_are_told_for_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((2, 3), np.float32))
    with pytest.raises(UserError, match=r"x\.npz: arrays of NumPy: make it a state dict of torch: ") as refused:
        weights.read(tmp_path / "x.npz")
    monkeypatch.chdir(tmp_path)
    exec(str(refused.value).partition("torch: ")[2], {"numpy": np, "torch": torch})
    assert torch.equal(torch.load(tmp_path / "weights.pth")["a"], torch.ones(2, 3))
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros(2**20, np.float32))
    with pytest.raises(UserError, match=r"zeros\.npz: arrays of NumPy"):
        weights.read(tmp_path / "zeros.npz")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(UserError, match=r"empty\.zip: an empty zip archive: give the file of weights"):
        weights.read(tmp_path / "empty.zip")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    with tarfile.open(tmp_path / "x.tar", "w") as folder:
        folder.add(tmp_path / "x.npz", "n07753592/x.npz")
    for kind, inside in (("zip", "config.json"), ("tar", "n07753592/x.npz")):
        with pytest.raises(UserError, match=rf"x\.{kind}: a {kind} archive without weights of torch: .* {inside}\)"):
            weights.read(tmp_path / f"x.{kind}")


def test_big_endian_machines_are_told(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(tmp_path / "x.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(UserError, match=r"x\.pth: saved on a big-endian machine: load it there"):
        weights.read(tmp_path / "x.pth")
