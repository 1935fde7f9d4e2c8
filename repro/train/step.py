"""One training step: forward and backward pass, and update, with nothing that waits for the device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from repro.config import Config
from repro.distributed import SINGLE, World
from repro.model import Network
from repro.model.layers import Dropout
from repro.train.cuda_graph import WARM_UPS, RecordedStep
from repro.train.optimizer import PaperSGD
from repro.train.out_of_memory import advised
from repro.train.precision import arithmetic
from repro.train.running_loss import RunningLoss


@dataclass
class TrainingStep:
    """The step of a configuration; the schedule sets the optimizer's rates before each."""

    config: Config
    network: Network
    optimizer: torch.optim.Optimizer
    device: torch.device
    world: World = SINGLE
    """Several processes share a batch; PyTorch's wrapper adds up their gradients while the backward pass goes on."""

    def __post_init__(self) -> None:
        """The wrapper gives all the first one's weights."""
        self.recorded: RecordedStep | None = None
        self.warm_ups = 0
        """Whole batches so far, up to the one that is recorded."""
        self.forward: Network | DistributedDataParallel = self.network
        if self.world.size > 1:
            self.forward = DistributedDataParallel(self.network, gradient_as_bucket_view=True)

    def __call__(self, images: Tensor, labels: Tensor, running: RunningLoss, whole: int | None = None) -> None:
        """One update from a batch (N, 3, crop, crop), in parts of `micro_batch` whose gradients add up.

        `whole`: images of the batch over all processes, where there are several; these are its `world.shard`.
        """
        count = len(labels) if whole is None else whole
        with advised(self.config, min(self.config.train.micro_batch or count, count)):
            if self._recordable and count == self.config.train.batch_size:
                self._replay(images, labels, running)
            else:
                self._update(images, labels, running, count)
        running.images += count

    @property
    def _recordable(self) -> bool:
        return self.device.type == "cuda" and self.world.size == 1 and self.config.may_record

    def _replay(self, images: Tensor, labels: Tensor, running: RunningLoss) -> None:
        """A whole batch by the recorded step; the first few are made kernel by kernel, and the next records it."""
        if self.warm_ups < WARM_UPS:
            self.warm_ups += 1
            self._update(images, labels, running, len(labels))
            return
        if isinstance(self.optimizer, PaperSGD):
            self.optimizer.rescale_velocity()
        if self.recorded is None:
            self.recorded = RecordedStep(self._update, self.optimizer, images, labels)
        self.recorded(images, labels, running)

    def _update(self, images: Tensor, labels: Tensor, running: RunningLoss, whole: int | None = None) -> None:
        count = len(labels) if whole is None else whole
        self.optimizer.zero_grad(set_to_none=True)
        for x, y, last in self._parts(images, labels, self.config.train.micro_batch or count, count):
            with nullcontext() if last else self._no_exchange():
                self._add_gradients(x, y, running, count)
        if self.config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()

    def _add_gradients(self, x: Tensor, y: Tensor, running: RunningLoss, count: int) -> None:
        with arithmetic(self.device, self.config.train.precision):
            logits = self.forward(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        (loss / count * self.world.size).backward()  # the wrapper takes the mean over processes
        running.add(loss, (logits.argmax(1) != y).sum())

    def _no_exchange(self) -> AbstractContextManager[None]:
        return self.forward.no_sync() if isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def _parts(self, images: Tensor, labels: Tensor, size: int, whole: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """A batch in parts that meet the dropout masks which the whole would have met; and whether it is the last."""
        count = len(labels)
        if size >= count == whole:
            yield images, labels, True
            return
        layers = [layer for layer in self.network.modules() if isinstance(layer, Dropout)]
        own = self.world.shard(whole)
        masks = [layer.draw(whole, self.device)[own] for layer in layers]
        for start in range(0, max(count, 1), size):
            rows = slice(start, start + size)
            for layer, mask in zip(layers, masks, strict=True):
                layer.mask = mask[rows]
            yield images[rows], labels[rows], start + size >= count
        for layer in layers:
            layer.mask = None
