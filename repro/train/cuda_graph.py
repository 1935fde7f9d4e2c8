"""A training step as one CUDA graph, update included: the host starts all its kernels by one call.

A graph holds the numbers that Python gave to its kernels when it was recorded. A learning rate changes during a run, so
the recorded update reads it from the device's memory.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from repro.errors import RunFailure
from repro.train.running_loss import RunningLoss

WARM_UPS = 3
"""Steps that are made kernel by kernel before one is recorded, as PyTorch's notes on CUDA graphs have it: libraries
prepare themselves, and the optimizer makes its state."""


class Rates:
    """The learning rates of an optimizer's parameter groups, as tensors () on the device."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        """The groups' own rates stay numbers, which the schedule sets."""
        self.groups = optimizer.param_groups
        self.tensors = [torch.zeros((), device=device) for _ in self.groups]
        self.written: list[float | None] = [None] * len(self.groups)
        self.write()

    def write(self) -> None:
        """Brings the tensors to the groups' rates; those that have not changed are left alone."""
        for number, (group, tensor) in enumerate(zip(self.groups, self.tensors, strict=True)):
            if self.written[number] != group["lr"]:
                tensor.fill_(group["lr"])
                self.written[number] = group["lr"]

    @contextmanager
    def in_groups(self) -> Iterator[None]:
        """Within, the groups have the tensors for rates: an update that is recorded reads them."""
        numbers = [group["lr"] for group in self.groups]
        try:
            for group, tensor in zip(self.groups, self.tensors, strict=True):
                group["lr"] = tensor
            yield
        finally:
            for group, number in zip(self.groups, numbers, strict=True):
                group["lr"] = number


class RecordedStep:
    """A step over batches of one shape, which updates the weights and adds to a running loss.

    Recording it changes neither the weights nor which random numbers come next.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor, RunningLoss], None],
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        labels: Tensor,
    ) -> None:
        """`step` takes images (N, 3, crop, crop), labels (N,) and a running loss. RunFailure where it must wait."""
        self.images, self.labels, self.running = images.clone(), labels.clone(), RunningLoss.on(images.device)
        self.rates = Rates(optimizer, images.device)

        def run() -> None:
            self.running.sums.zero_()
            step(self.images, self.labels, self.running)

        with torch.random.fork_rng([images.device] if images.is_cuda else []), self.rates.in_groups():
            self.replay = record(run)

    def __call__(self, images: Tensor, labels: Tensor, running: RunningLoss) -> None:
        """Updates as `step` does, at the rates that the optimizer's groups have now."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.rates.write()
        self.replay()
        running.sums += self.running.sums


def record(run: Callable[[], None]) -> Callable[[], None]:
    """Returns what repeats the kernels of `run` on the same memory. RunFailure where one cannot be recorded."""
    gc.collect()  # an earlier graph that a collection destroyed during the recording would spoil it
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if isinstance(error.__context__, torch.OutOfMemoryError):  # the recording's end fails over it
            raise error.__context__ from None
        reason = str(error).partition("\n")[0]
        raise RunFailure(f"a step cannot be recorded as a CUDA graph ({reason}): set train.cuda_graph=false") from error
    return graph.replay
