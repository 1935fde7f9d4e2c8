"""Response normalisation beside PyTorch's layer, and beside a plain copy of the same tensor."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from repro import experiments
from repro.config import Config, Precision
from repro.model import build
from repro.speed import peers
from repro.speed.sidebyside import Measured, in_turn, rate

MAPS, SIDE = 96, 55
"""conv1's output, section 3.5."""
BATCH = {"cpu": 32, "cuda": 512}
"""Images: on a GPU so many that its cache holds only a small part of them."""
ROUNDS = 11
DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16}
MOVED, COPY_TENSORS = 5, 2
"""Tensors through memory, at least: forward reads x and writes b; backward reads x and db and writes dx."""


def race(device: torch.device) -> Measured:
    """Images/s of forward and backward, and of copies that move as many bytes."""
    # narrow fully connected layers make the net sooner, and its normalisation as it is
    config = experiments.compose(["setup=ilsvrc2012", "model.sizes.fc6=2", "model.sizes.fc7=2"])
    batch = BATCH[device.type]
    measures: dict[str, Callable[[], float]] = {}
    shape = (batch, MAPS, SIDE, SIDE)
    for precision, dtype in DTYPES.items():
        x = torch.randn(shape, device=device).to(dtype)
        ours = x.contiguous(memory_format=torch.channels_last)  # as a training step has it
        measures |= {
            f"ours, {precision.name}": rate(both_ways(response_norm(config), ours), batch, device),
            f"copy, {precision.name}": rate(_copy(torch.empty_like(x), x), batch * COPY_TENSORS / MOVED, device),
        }
        if device.type == "cuda" or precision is Precision.fp32:  # PyTorch's has no bf16 on a CPU
            peer = both_ways(peers.response_norm(config.model.norm), x)
            measures[f"nn.LocalResponseNorm, {precision.name}"] = rate(peer, batch, device)
    return Measured(in_turn(measures, ROUNDS), f"forward and backward of {' x '.join(map(str, shape))} numbers")


def response_norm(config: Config) -> nn.Module:
    """The layer behind conv1 as a training run has it."""
    return build(config, classes=2).get_submodule("features.norm1")


def both_ways(layer: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward of a layer; returns the gradients of `x` and of the parameters."""
    x = x.detach().requires_grad_()
    sources, gradient = [x, *layer.parameters()], torch.ones_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), sources, gradient)


def _copy(out: Tensor, x: Tensor) -> Callable[[], Tensor]:
    return lambda: out.copy_(x)
