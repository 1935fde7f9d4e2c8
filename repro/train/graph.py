"""Forward and backward pass of a whole batch as one CUDA graph: the host starts all its kernels by one call."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from repro.errors import RunFailure
from repro.train.tally import Tally

WARM_UPS = 3
"""Passes on a stream of their own before one is recorded, as PyTorch's notes on CUDA graphs have it."""


class RecordedPass:
    """A pass over batches of one shape, which leaves its gradients in the parameters and adds to a tally.

    Recording it changes neither the weights nor which random numbers come next.
    """

    def __init__(self, work: Callable[[Tensor, Tensor, Tally], None], network: nn.Module, like: Tensor) -> None:
        """`work` takes images as `like` (N, 3, crop, crop), labels (N,) and a tally. RunFailure where it must wait."""
        self.work, self.parameters = work, list(network.parameters())
        self.images, self.tally = like.clone(), Tally.on(like.device)
        self.labels = torch.zeros(len(like), dtype=torch.int64, device=like.device)
        with torch.random.fork_rng([like.device] if like.is_cuda else []):
            self.replay = record(self._run)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, images: Tensor, labels: Tensor, tally: Tally) -> None:
        """As `work`; the gradients replace those that were there."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # the optimizer and smaller batches drop or replace it
        tally.loss += self.tally.loss
        tally.wrong += self.tally.wrong

    def _run(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None  # so that the pass writes its gradients and adds to none
        self.tally.loss.zero_()
        self.tally.wrong.zero_()
        self.work(self.images, self.labels, self.tally)


def record(run: Callable[[], None]) -> Callable[[], None]:
    """What repeats a run's kernels on the same memory. RunFailure where one cannot be recorded."""
    aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    try:
        with torch.cuda.graph(graph):
            run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise RunFailure(f"a step cannot be recorded as a CUDA graph ({reason}): leave train.cuda_graph out") from error
    return graph.replay
