"""Response normalisation beside PyTorch's layer, and beside a plain copy of the same tensor."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from repro.benchmarks import plain_pytorch
from repro.benchmarks.alternating import Measure, Measured, Reasons, in_turn, one_after_the_other, rate
from repro.config import Config, Precision
from repro.experiments.compose import compose
from repro.model import build

PEER = "nn.LocalResponseNorm"
Shape = tuple[int, int, int, int]
MAPS, SIDE = 96, 55
"""conv1's output, section 3.5."""
BATCH = {"cpu": 32, "cuda": 512}
"""Images: on a GPU so many that its cache holds only a small part of them."""
ROUNDS = {"cpu": 11, "cuda": 7}
LEAST_SECONDS = {"cpu": 0.2, "cuda": 0.1}
SECONDS = 60.0
"""No round begins later than this: a slow processor makes fewer."""
DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16}
MOVED, COPY_TENSORS = 5, 2
"""Tensors through memory, at least: forward reads x and writes b; backward reads x and db and writes dx."""


def race(device: torch.device) -> Measured:
    """Images/s of forward and backward, and of copies that move as many bytes."""
    # narrow fully connected layers make the net sooner, and its normalisation as it is
    config = compose(["setup=ilsvrc2012", "model.sizes.fc6=2", "model.sizes.fc7=2"])
    shape = (BATCH[device.type], MAPS, SIDE, SIDE)
    makers: dict[str, Callable[[], Measure]] = {}
    for precision, dtype in DTYPES.items():
        makers[f"ours, {precision.name}"] = partial(_ours, config, shape, dtype, device)
        makers[f"copy, {precision.name}"] = partial(_copy, shape, dtype, device)
        if device.type == "cuda" or precision is Precision.fp32:  # PyTorch's has no bf16 on a CPU
            makers[f"{PEER}, {precision.name}"] = partial(_peer, config, shape, dtype, device)
    note = f"forward and backward of {' x '.join(map(str, shape))} numbers"
    if device.type == "cuda":
        failed: Reasons = {}
        return Measured(one_after_the_other(makers, ROUNDS["cuda"], failed), note, failed=failed)
    until = time.perf_counter() + SECONDS
    return Measured(in_turn({name: make() for name, make in makers.items()}, ROUNDS["cpu"], until), note)


def _ours(config: Config, shape: Shape, dtype: torch.dtype, device: torch.device) -> Measure:
    """Channels last, as a training step has it."""
    x = _numbers(shape, dtype, device).contiguous(memory_format=torch.channels_last)
    return rate(both_ways(response_norm(config), x), shape[0], device, LEAST_SECONDS[device.type])


def _peer(config: Config, shape: Shape, dtype: torch.dtype, device: torch.device) -> Measure:
    layer = plain_pytorch.response_norm(config.model.norm)
    return rate(both_ways(layer, _numbers(shape, dtype, device)), shape[0], device, LEAST_SECONDS[device.type])


def _copy(shape: Shape, dtype: torch.dtype, device: torch.device) -> Measure:
    x = _numbers(shape, dtype, device)
    out = torch.empty_like(x)
    images = shape[0] * COPY_TENSORS / MOVED
    return rate(lambda: out.copy_(x), images, device, LEAST_SECONDS[device.type])


def _numbers(shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device).to(dtype)


def response_norm(config: Config) -> nn.Module:
    """The layer behind conv1 as a training run has it."""
    return build(config, classes=2).get_submodule("features.norm1")


def both_ways(layer: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward of a layer; returns the gradients of `x` and of the parameters."""
    x = x.detach().requires_grad_()
    sources, gradient = [x, *layer.parameters()], torch.ones_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), sources, gradient)
