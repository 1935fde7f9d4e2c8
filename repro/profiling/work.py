"""The work of each layer in one training step: operations and bytes, from the shapes that it meets.

A multiply-add counts as two operations. The bytes are the least there can be: forward reads input and weights and
writes the output; backward reads the output's gradient, the input and the weights, and writes the gradients of
input and weights. What an implementation moves beyond that shows as a low share of the ceiling.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from repro.model import Network
from repro.model.lrn import LocalResponseNorm
from repro.model.network import WEIGHT_LAYERS, fan_in
from repro.profiling.ranges import BACKWARD, FORWARD, layers

UPDATE_OPERATIONS = 6  # a parameter: v <- momentum v - weight_decay lr w - lr g; w <- w + v (section 5)


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes through memory."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """Adds up both, one after the other."""
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, share: float) -> "Work":
        """Part of it."""
        return Work(self.flops * share, self.bytes * share)


LayerWork = dict[tuple[str, str], Work]
"""(layer, phase) -> its work in one step."""


@contextmanager
def layer_work(network: Network) -> Iterator[LayerWork]:
    """Adds up the work of the steps made while it lasts."""
    meter = _Meter()
    handles = [
        network.register_forward_pre_hook(meter.start),
        *(layer.register_forward_hook(partial(meter.add, name)) for name, layer in layers(network).items()),
        network.register_forward_hook(meter.stop),
    ]
    try:
        yield meter.work
    finally:
        for handle in handles:
            handle.remove()


class _Meter:
    """Counts within the network's forward pass: not what is computed again later, to save memory."""

    def __init__(self) -> None:
        self.work: LayerWork = defaultdict(Work)
        self.running = False

    def start(self, *hooked: object) -> None:
        self.running = True

    def stop(self, *hooked: object) -> None:
        self.running = False

    def add(self, name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if not self.running:
            return
        weighted = name.startswith(WEIGHT_LAYERS)
        forward, backward = (_weighted if weighted else _weightless)(module, inputs[0], output)
        self.work[name, FORWARD] += forward
        if output.requires_grad:
            self.work[name, BACKWARD] += backward


def _weighted(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Work, Work]:
    """Forward and backward of a convolution or product; the images (first layer) need no gradient."""
    weights = sum(parameter.nbytes for parameter in module.parameters())
    flops = 2 * y.numel() * fan_in(module)
    backward = Work(flops, x.nbytes + y.nbytes + weights)
    if x.requires_grad:
        backward += Work(flops, x.nbytes + weights)
    return Work(flops, x.nbytes + y.nbytes + weights), backward


def _weightless(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Work, Work]:
    """Forward and backward of what works on each number, window or neighbourhood."""
    flops, backward_flops = 1 * y.numel(), 1 * y.numel()
    if isinstance(module, LocalResponseNorm):
        # square, sum, times alpha, plus k, two roots, their product, times x; backward has d once more, and a sum
        flops = ((module.n**2 if module.pixels else module.n) + 6) * x.numel()
        backward_flops = 2 * flops
    elif isinstance(module, nn.BatchNorm2d):
        flops, backward_flops = 7 * x.numel(), 14 * x.numel()  # mean, variance (3), minus, times, plus
    elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        window = module.kernel_size
        assert isinstance(window, int)
        flops = backward_flops = window**2 * y.numel()
    return Work(flops, x.nbytes + y.nbytes), Work(backward_flops, 2 * x.nbytes + y.nbytes)


def update_work(optimizer: torch.optim.Optimizer) -> Work:
    """Counts one update: weights and velocity (for Adam both moments) are read and written, the gradient is read."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    moved = sum(3 * parameter.nbytes for parameter in parameters) + sum(2 * value.nbytes for value in state)
    return Work(UPDATE_OPERATIONS * sum(parameter.numel() for parameter in parameters), moved)


def input_work(images: Tensor) -> Work:
    """Counts the preparing of a batch (N, 3, crop, crop): one byte read and one number written each, less the mean."""
    return Work(images.numel(), images.numel() + images.nbytes)
