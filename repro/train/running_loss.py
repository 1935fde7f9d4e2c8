"""Loss and error of an epoch: sums that stay on the device, and looks at them that do not wait for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from repro.distributed import SINGLE, World


@dataclass(frozen=True)
class Snapshot:
    """The sums after so many images, on their way to the host."""

    sums: Tensor
    """(2,): loss in nats, and wrong answers; to be read when the copy has been made."""
    images: int
    copied: torch.cuda.Event | None

    def means(self) -> tuple[float, float]:
        """Mean loss in nats and top-1 error in %; waits where it must."""
        if self.copied is not None:
            self.copied.synchronize()
        loss, wrong = self.sums.tolist()
        return loss / self.images, 100 * wrong / self.images


@dataclass
class RunningLoss:
    """Sums over an epoch's batches."""

    sums: Tensor
    """(2,) float64 on the device: loss in nats, and wrong answers."""
    images: int = 0
    """Of whole batches."""
    seconds: float = 0.0

    @classmethod
    def on(cls, device: torch.device) -> "RunningLoss":
        """An empty one."""
        return cls(torch.zeros(2, device=device, dtype=torch.float64))

    def add(self, loss: Tensor, wrong: Tensor) -> None:
        """Adds the summed loss in nats and the number of wrong answers of some images, both of shape ()."""
        self.sums += torch.stack((loss.detach().double(), wrong.double()))

    def snapshot(self, world: World = SINGLE) -> Snapshot:
        """Asks for the sums as they stand now, over all processes."""
        sums = self.sums.clone()
        world.all_reduce(sums)
        if not sums.is_cuda:
            return Snapshot(sums, self.images, None)
        there, copied = sums.to("cpu", non_blocking=True), torch.cuda.Event()
        copied.record()
        return Snapshot(there, self.images, copied)
