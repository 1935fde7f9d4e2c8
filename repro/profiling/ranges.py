"""The paper's layer names on the timeline of a profiler, by hooks that are set while one looks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.profiler import record_function

from repro.model import Network

INPUT, FORWARD, BACKWARD, UPDATE = "input", "forward", "backward", "update"
"""The phases of a step."""


def layers(network: Network) -> dict[str, nn.Module]:
    """The layers by the paper's names, in order."""
    return dict([*network.features.named_children(), *network.classifier.named_children()])


@contextmanager
def named_ranges(network: Network) -> Iterator[None]:
    """Makes a range of each layer's forward pass, and one of the whole: for torch.profiler, and on CUDA for Nsight.

    Backward passes get no range: a profiler ties them to the forward pass by autograd's sequence numbers.
    """
    on_cuda = next(network.parameters()).is_cuda
    handles = []
    for name, module in {FORWARD: network, **layers(network)}.items():
        span = _Range(name, on_cuda)
        handles.append(module.register_forward_pre_hook(span.begin))
        # activations that are computed again stop at the last one needed, with an exception
        handles.append(module.register_forward_hook(span.end, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Range:
    def __init__(self, name: str, on_cuda: bool) -> None:
        self.name, self.on_cuda = name, on_cuda

    def begin(self, *hooked: object) -> None:
        self.range = record_function(self.name)
        self.range.__enter__()
        if self.on_cuda:
            torch.cuda.nvtx.range_push(self.name)

    def end(self, *hooked: object) -> None:
        if self.on_cuda:
            torch.cuda.nvtx.range_pop()
        self.range.__exit__(None, None, None)
