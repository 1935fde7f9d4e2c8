from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import alexnet

from repro import weights
from repro.errors import UserError
from repro.experiments.compose import compose
from repro.model import Network, build
from tests.weights.nets import CLASSES, random_network, small_config


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """Their net at its full size with random weights, for ten classes."""
    torch.manual_seed(1)
    return alexnet(num_classes=CLASSES).eval()


@pytest.fixture(scope="module")
def ours(theirs: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Our rebuilt net with the weights of their file."""
    path = tmp_path_factory.mktemp("theirs") / "alexnet.pth"
    torch.save(theirs.state_dict(), path)
    with torch.device("meta"):  # no time for weights that are replaced
        network = build(compose(["recipe=torchvision", "setup=ilsvrc2012"]), CLASSES).eval()
    weights.load_into(path, network.to_empty(device="cpu"))
    return network


@torch.no_grad()
def test_their_file_gives_their_logits(theirs: torch.nn.Module, ours: Network) -> None:
    images = torch.randn(2, 3, 224, 224)
    expected = theirs(images)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_file_that_we_write_gives_them_our_logits(ours: Network, tmp_path: Path) -> None:
    weights.save(tmp_path / "ours.pth", ours)
    with torch.device("meta"):
        other = alexnet(num_classes=CLASSES).eval()
    other.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True), assign=True)
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(other(images), ours(images), rtol=0, atol=1e-5)


def test_their_names_are_known_in_other_containers(tmp_path: Path) -> None:
    network = random_network(small_config("torchvision"))
    weights.save(tmp_path / "ours.pth", network)
    state = torch.load(tmp_path / "ours.pth", weights_only=True)
    save_file(state, tmp_path / "safetensors")
    torch.save(state, tmp_path / "before 1.6", _use_new_zipfile_serialization=False)
    for name in ("safetensors", "before 1.6"):
        found = weights.read(tmp_path / name)
        for layer, module in network.weight_layers().items():
            assert torch.equal(found[f"{layer}.weight"], module.state_dict()["weight"])


@pytest.mark.parametrize("change", ["model.layers=[conv1,conv2,conv3,conv4,fc6,fc7,fc8]", "model.norm.kind=batch_norm"])
def test_a_net_with_other_layers_has_no_names_of_theirs(change: str, tmp_path: Path) -> None:
    network = build(compose(["model.scale=0.0625", change]), CLASSES)
    with pytest.raises(UserError, match=r"torchvision's alexnet has conv1, .*, fc8; this network has conv1, "):
        weights.save(tmp_path / "ours.pth", network)
    assert not any(tmp_path.iterdir())
