"""State dicts under the names that people's programs give them."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from repro import weights
from repro.errors import UserError
from repro.model import Network
from repro.weights.state_dicts import network_in
from repro.weights.torchvision import LAYERS, to_torchvision
from tests.weights.nets import random_network, small_config

State = dict[str, Tensor]
HERE = Path("x.pth")


@pytest.fixture(scope="module")
def ours() -> State:
    """Of a net with the names of this package; to be read only."""
    torch.manual_seed(0)
    return random_network(small_config("torchvision")).state_dict()


@pytest.fixture(scope="module")
def theirs(network: Network) -> State:
    """The same weights by torchvision's names."""
    return to_torchvision(network)


@pytest.fixture(scope="module")
def network(ours: State) -> Network:
    net = random_network(small_config("torchvision"))
    net.load_state_dict(ours)
    return net


def assert_found(saved: Any, ours: State) -> None:
    found = network_in(saved, HERE)
    assert found.keys() == {name.partition(".")[2] for name in ours}
    for name, tensor in ours.items():
        assert found[name.partition(".")[2]] is tensor or torch.equal(found[name.partition(".")[2]], tensor)


def prefixed(before: str, state: State) -> State:
    return {before + name: tensor for name, tensor in state.items()}


def parallel_features(state: State) -> State:
    """pytorch/examples wraps AlexNet's features in DataParallel; the files of Places365 come from it."""
    return {name.replace("features.", "features.module."): tensor for name, tensor in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"param_groups": [{}]}},
    "DataParallel": lambda state: prefixed("module.", state),
    "torch.compile": lambda state: prefixed("_orig_mod.", state),
    "Lightning": lambda state: {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 0.1}},
    "fast.ai": lambda state: {"model": prefixed("0.", state)},
    "a wrapper of one's own": lambda state: prefixed("net.", state),
    "one that nobody has named": lambda state: {"weights_of_mine": prefixed("backbone.alexnet.", state)},
    "parts by themselves": lambda state: {
        part: {name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(part)}
        for part in ("features", "classifier")
    },
    "a dict in a dict": lambda state: {"checkpoint": {"model": {"state_dict": state}}},
    "pytorch/examples": lambda state: {"arch": "alexnet", "state_dict": parallel_features(state)},
    "Places365, compiled": lambda state: {"state_dict": prefixed("_orig_mod.module.", parallel_features(state))},
    "layers compiled one by one": lambda state: {
        name.replace(".weight", "._orig_mod.weight").replace(".bias", "._orig_mod.bias"): tensor
        for name, tensor in state.items()
    },
    "the average beside it": lambda state: {
        "model": prefixed("module.", {name: tensor + 1 for name, tensor in state.items()}),
        "model_ema": prefixed("module.", state) | {"n_averaged": torch.tensor(7)},
    },
    "timm's average": lambda state: {
        "state_dict": {name: tensor + 1 for name, tensor in state.items()}, "state_dict_ema": state,
    },
    "an average of one's own": lambda state: {
        "model": {name: tensor + 1 for name, tensor in state.items()}, "ema_state_dict": state,
    },
}  # fmt: skip


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_state_dict_is_found_wherever_it_is(wrapped: str, ours: State, theirs: State) -> None:
    for state in (ours, theirs):
        assert_found(WRAPPED[wrapped](state), ours)


def test_any_nesting_of_wrappers(ours: State, theirs: State) -> None:
    """A hundred of them, drawn at random: dicts and prefixes, one in the other."""
    draw = random.Random(0)
    words = ("module", "_orig_mod", "model", "net", "state_dict", "model_state_dict", "x")
    for _ in range(100):
        saved: Any = draw.choice((ours, theirs))
        if draw.random() < 0.5:
            saved = parallel_features(saved)
        for _ in range(draw.randrange(4)):
            saved = prefixed(f"{draw.choice(words)}.", saved)
        for _ in range(draw.randrange(4)):
            saved = {draw.choice(words): saved, "step": draw.randrange(10), "lr": torch.tensor(0.1)}
        assert_found(saved, ours)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_the_wrappers_of_torch_itself(wrap: Callable[[nn.Module], nn.Module], ours: State, network: Network) -> None:
    assert_found(wrap(network).state_dict(), ours)
    assert_found(torch.optim.swa_utils.AveragedModel(network).state_dict(), ours)


def test_safetensors_with_such_names(theirs: State, ours: State, tmp_path: Path) -> None:
    short = {name: tensor.half() for name, tensor in prefixed("_orig_mod.", parallel_features(theirs)).items()}
    save_file(short, tmp_path / "x.safetensors")
    found = weights.read(tmp_path / "x.safetensors")
    for name, tensor in ours.items():
        assert torch.equal(found[name.partition(".")[2]], tensor.half())


def test_names_without_the_part_of_the_net(ours: State) -> None:
    assert_found({name.partition(".")[2]: tensor for name, tensor in ours.items()}, ours)


@pytest.mark.parametrize("outer", ["", "module.", "state_dict/"])
def test_a_tensor_that_no_layer_has_is_not_lost(outer: str, ours: State) -> None:
    """So that filling a network can say that it does not fit."""
    extra = {"normalize.mean": torch.ones(3), "features.attention.weight": torch.ones(1)}
    saved = {"state_dict": {**ours, **extra}} if outer.endswith("/") else prefixed(outer, {**ours, **extra})
    assert network_in(saved, HERE).keys() - {name.partition(".")[2] for name in ours} == {
        "normalize.mean", "features.attention.weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("saved", "answer"),
    [
        (
            lambda s: {"student": s, "teacher": s.copy()},
            r"holds several networks \(\w+, \w+\): save the state dict of one",
        ),
        (lambda s: s | prefixed("module.", s), r"several networks \((top level, module|module, top level)\)"),
        (lambda s: {"ema": s, "model_ema": s.copy()}, "holds several networks"),
        (
            lambda s: s | {n: t + 1 for n, t in parallel_features(s).items()},
            r"holds \w+\.weight twice|holds \w+\.bias twice",
        ),
    ],
)
def test_what_could_be_meant_in_two_ways(saved: Callable[[State], Any], answer: str, ours: State) -> None:
    with pytest.raises(UserError, match=rf"x\.pth: .*({answer})"):
        network_in(saved({name: tensor.clone() for name, tensor in ours.items()}), HERE)


@pytest.mark.parametrize(
    "names",
    [
        ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight", "fc.weight", "fc.bias"],
        ["features.0.weight", "features.3.bias"],
        ["encoder.weight"],
        [],
    ],
)
def test_other_nets_are_told_by_their_names(names: list[str]) -> None:
    with pytest.raises(UserError, match=rf"no state dict of AlexNet: .* it holds .*{names[0] if names else 'none'}"):
        network_in({name: torch.ones(1) for name in names}, HERE)


def test_a_dict_that_holds_itself(ours: State) -> None:
    saved: dict[str, Any] = {"state_dict": dict(ours)}
    saved["again"] = saved
    assert_found(saved, ours)


def test_every_layer_of_torchvision_is_in_the_table(theirs: State) -> None:
    assert {name.rpartition(".")[0] for name in theirs} == LAYERS.keys()
    assert len(set(itertools.chain(LAYERS.values()))) == len(LAYERS)
