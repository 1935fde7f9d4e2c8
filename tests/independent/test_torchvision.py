"""torchvision's AlexNet and PyTorch's own LRN layer, with our weights and conventions."""

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from repro.config import NormConfig
from repro.experiments.compose import compose
from repro.model import build, lrn

CLASSES = 10


def test_the_recipe_has_torchvisions_logits() -> None:
    theirs = alexnet(num_classes=CLASSES).eval()
    with torch.device("meta"):  # the weights come from torchvision
        ours = build(compose(["recipe=torchvision", "setup=ilsvrc2012"]), CLASSES).eval()
    weighted = [layer for layer in theirs.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, source in zip(ours.weight_layers().values(), weighted, strict=True):
        source.weight.data.mul_(6**0.5)  # from PyTorch's variance to He's: the images come through
        layer.load_state_dict(source.state_dict(), assign=True)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(("alpha_over_n", "torch_alpha"), [(False, 5e-4), (True, 1e-4)])
def test_lrn_and_its_gradient_are_pytorchs(columns: int, alpha_over_n: bool, torch_alpha: float) -> None:
    """PyTorch divides alpha by n; columns that know nothing of each other are images of their own to it."""
    images, maps = 3, 96
    a = (50 * torch.randn(images, maps, 5, 4, dtype=torch.float64)).requires_grad_()
    theirs = nn.LocalResponseNorm(5, alpha=torch_alpha, beta=0.75, k=2.0)
    expected = theirs(a.reshape(images * columns, maps // columns, 5, 4)).reshape(a.shape)
    found = lrn.from_config(NormConfig(alpha_over_n=alpha_over_n), columns)(a)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(a)
    gradients = [torch.autograd.grad(out, a, g, retain_graph=True)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients)
