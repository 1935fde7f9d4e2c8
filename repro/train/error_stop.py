"""The end of a run by its training error, `train.stop_at_train_error`: how figure 1 of the paper measures speed."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ErrorStop:
    """Watches the training error over the last epoch's worth of images, and notes when it first was low enough.

    It is looked at every few steps, so that the moment is known to a fraction of an epoch. Before the end of the first
    epoch there is no such error.
    """

    level: float | None
    """Training error in % that ends the run; None: it goes on to its last epoch."""
    images: int
    """Training images of an epoch."""
    reached: float | None = None
    """Epochs until the level was reached; None where it has not been."""
    before: dict[int, float] = field(default_factory=dict)
    """Wrong answers of the epoch before, by how many images of it had been seen."""
    now: dict[int, float] = field(default_factory=dict)
    """The same of this epoch."""

    def look(self, epoch: int, images: int, error: float) -> None:
        """Takes the error in % over the first `images` images of an epoch, counted from 0."""
        if self.level is None or self.reached is not None:
            return
        self.now[images] = error * images / 100
        whole = images == self.images
        if self.before or whole:
            since = self.before[self.images] - self.before[images] if self.before else 0.0
            if 100 * (self.now[images] + since) / self.images <= self.level:
                self.reached = epoch + images / self.images
        if whole:
            self.before, self.now = self.now, {}

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on, the level apart."""
        return {"reached": self.reached, "before": self.before, "now": self.now}

    @property
    def event(self) -> str:
        """Says when the level was reached; empty where it has not been."""
        if self.reached is None:
            return ""
        return f"training error of {self.level:g} % reached after {self.reached:.2f} epochs"
