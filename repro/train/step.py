"""One training step: forward and backward pass, and update, with nothing that waits for the device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from repro.config import Config
from repro.errors import RunFailure
from repro.model import Network
from repro.model.network import Dropout
from repro.ranks import ALONE, Ranks
from repro.train.graph import RecordedPass
from repro.train.precision import arithmetic
from repro.train.tally import Tally


@dataclass
class TrainingStep:
    """The step of a configuration; the schedule sets the optimizer's rates before each."""

    config: Config
    network: Network
    optimizer: torch.optim.Optimizer
    device: torch.device
    ranks: Ranks = ALONE
    """Several processes share a batch; PyTorch's wrapper adds up their gradients while the backward pass goes on."""

    def __post_init__(self) -> None:
        """The wrapper gives all the first one's weights."""
        self.recorded: RecordedPass | None = None
        self.forward: Network | DistributedDataParallel = self.network
        if self.ranks.count > 1:
            self.forward = DistributedDataParallel(self.network, gradient_as_bucket_view=True)

    def __call__(self, images: Tensor, labels: Tensor, tally: Tally, whole: int | None = None) -> None:
        """One update from a batch (N, 3, crop, crop), in parts of `micro_batch` whose gradients add up.

        `whole`: images of the batch over all processes, where there are several; these are its `ranks.rows`.
        """
        count = len(labels) if whole is None else whole
        self.optimizer.zero_grad(set_to_none=True)
        part = self.config.train.micro_batch or count
        try:
            if self.config.train.cuda_graph and count == self.config.train.batch_size:
                self._replay(images, labels, tally)
            else:
                for x, y, last in self._parts(images, labels, part, count):
                    with nullcontext() if last else self._no_exchange():
                        self._add_gradients(x, y, tally, count)
            if self.config.optimizer.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
            self.optimizer.step()
        except (MemoryError, RuntimeError) as error:
            if not _about_memory(error):
                raise
            raise RunFailure(_smaller_parts(part, self.config.train.batch_size)) from error
        tally.images += count

    def _replay(self, images: Tensor, labels: Tensor, tally: Tally) -> None:
        """A whole batch by the recorded pass; the first records it."""
        if self.recorded is None:
            work = partial(self._add_gradients, count=len(labels))
            self.recorded = RecordedPass(work, self.network, images)
        self.recorded(images, labels, tally)

    def _add_gradients(self, x: Tensor, y: Tensor, tally: Tally, count: int) -> None:
        with arithmetic(self.device, self.config.train.precision):
            logits = self.forward(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        (loss / count * self.ranks.count).backward()  # the wrapper takes the mean over processes
        tally.loss += loss.detach()
        tally.wrong += (logits.argmax(1) != y).sum()

    def _no_exchange(self) -> AbstractContextManager[None]:
        return self.forward.no_sync() if isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def _parts(self, images: Tensor, labels: Tensor, size: int, whole: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """A batch in parts that meet the dropout masks which the whole would have met; and whether it is the last."""
        count = len(labels)
        if size >= count == whole:
            yield images, labels, True
            return
        layers = [layer for layer in self.network.modules() if isinstance(layer, Dropout)]
        own = self.ranks.rows(whole)
        masks = [layer.draw(whole, self.device)[own] for layer in layers]
        for start in range(0, max(count, 1), size):
            rows = slice(start, start + size)
            for layer, mask in zip(layers, masks, strict=True):
                layer.mask = mask[rows]
            yield images[rows], labels[rows], start + size >= count
        for layer in layers:
            layer.mask = None


def _about_memory(error: Exception) -> bool:
    """Whether there is too little of it; torch has a type of its own for that on GPUs only."""
    words = ("not enough memory", "allocate memory", "out of memory")  # of its allocator on CPUs, and of cuDNN
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(word in str(error).lower() for word in words)


def _smaller_parts(part: int, batch: int) -> str:
    """What to do when `part` images at once are too many: the next size that divides the batch, at most half."""
    if part == 1:
        return "out of memory with one image at a time: a machine with more memory is needed"
    size = next(size for size in range(part // 2, 0, -1) if batch % size == 0)
    return f"out of memory with {part} images at once: try train.micro_batch={size} (same result)"
