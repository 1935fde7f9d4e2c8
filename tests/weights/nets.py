"""Networks whose weights matter, small enough to pass images through in a test."""

import torch
from torch import Tensor

from repro.config import Config, InitKind
from repro.experiments.compose import compose
from repro.model import Network, build

CLASSES = 10


def small_config(recipe: str) -> Config:
    """A recipe at a sixteenth of the width for 96-pixel crops, of which pool5 leaves 2 x 2 pixels."""
    return compose(
        [f"recipe={recipe}", "setup=ilsvrc2012", "model.scale=0.0625", "data.crop=96", "train.fast_kernels=false"]
    )


def random_network(config: Config) -> Network:
    """He's weights keep the logits dependent on the images; random biases tell one unit from another."""
    config.model.init.kind = InitKind.he
    network = build(config, CLASSES).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return network


def random_images(config: Config) -> Tensor:
    """Two images (2, 3, S, S), pixels as far from the mean as a photograph's."""
    return 60 * torch.randn(2, 3, config.crop, config.crop)


def logits(network: Network, images: Tensor) -> Tensor:
    """(N, classes), after a look at whether they tell the images apart."""
    with torch.no_grad():
        found = network.eval()(images)
    assert (found[0] - found[1]).abs().max() > 1e-2 * found.abs().max(), "the images change little"
    return found


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal up to a few roundings of the largest logit."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
