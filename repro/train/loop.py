"""The training loop: one pass after another, a row of the curve and a checkpoint after each."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro import threads
from repro.config import Config, ScheduleKind
from repro.data.batches import epoch_seed, held_out, training_batches
from repro.data.on_gpu import resident
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, Split
from repro.distributed import SINGLE, World
from repro.errors import UserError
from repro.model import Network
from repro.train import checkpoint
from repro.train.error_stop import ErrorStop
from repro.train.evaluation import Evaluation, evaluate, images_at_once
from repro.train.optimizer import make_optimizer
from repro.train.out_of_memory import advised
from repro.train.running_loss import RunningLoss, Snapshot
from repro.train.schedule import Schedule
from repro.train.step import TrainingStep

REPORT_STEPS = 10
"""Steps between two snapshots of the loss."""
SNAPSHOTS_BEHIND = {"cpu": 0, "cuda": 1}
"""Snapshots that may be on their way while the next steps are queued; a count, so that all processes end together."""
SMALL_CHECKPOINT, SAVING_SHARE = 2**24, 0.1
"""Bytes up to which a checkpoint is made after every epoch; a larger one as often as takes this share of the time.
A GPU makes an epoch of a small set in less time than a disk needs for the 488 MB of the full net."""
NOT_MOVED = 0.01
"""A validation loss this near ln(classes), as a share of it, has not moved."""
NOT_FINITE = "loss not finite"
"""The event that ends a run which diverges."""


@dataclass(frozen=True)
class Progress:
    """The stand of a run: epoch and step within it (both from 0), mean loss (nats), error (%), images/s."""

    epoch: int
    step: int
    steps: int
    loss: float
    error: float
    images_per_second: float
    recent_loss: float
    """Mean over the images since the last such stand, nats."""


@dataclass
class Training:
    """One run's training, from its first epoch or from its last checkpoint."""

    config: Config
    network: Network
    data: ImageData
    device: torch.device
    folder: Path
    """Where the checkpoint lies."""
    identity: dict[str, str]
    """What a checkpoint must agree with."""
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None
    on_warning: Callable[[str], None] = lambda text: None
    on_evaluation: Callable[[str, int, int], None] = lambda what, done, total: None
    """What is measured, crops done and all of them."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """One row an epoch, with the columns of the record's curve."""
    world: World = SINGLE
    """The processes that share the run; the first writes its files."""
    diverged: bool = False
    saved: int = 0
    """Epochs in the last checkpoint."""
    threads_before: list[int] = field(default_factory=list)
    """Threads on a processor of the parts before a change of their number, which changes the bits."""
    branched_from: str | None = None
    """The run and epoch whose checkpoint this run took up; none: its own beginning."""

    def __post_init__(self) -> None:
        """Moves the network to the device; channels-last is the faster layout for its convolutions."""
        with advised(self.config, None):
            self.network.to(self.device).to(memory_format=torch.channels_last)
            self.data = resident(self.data, self.device)
            self.pixels = Pixels(self.config, self.data, self.device)
        self.train_split, self.minival = held_out(self.config, self.data)
        self.optimizer = make_optimizer(self.network, self.config.optimizer)
        self.step = TrainingStep(self.config, self.network, self.optimizer, self.device, self.world)
        batch = self.config.train.batch_size
        self.steps = -(-len(self.train_split.labels) // batch)
        self.schedule = Schedule(self.config, self.steps * self.config.train.epochs)
        self.error_stop = ErrorStop(self.config.train.stop_at_train_error, len(self.train_split.labels))
        self.save_due = 0.0  # by the clock of `time.perf_counter`

    def resume(self) -> None:
        """Takes up the last checkpoint, if there is one; of something else, `force` passes it over.

        UserError where it is damaged or of something else, and where processes found different images or checkpoints.
        """
        state = self._checkpoint()
        if state is not None:
            try:
                with advised(self.config, None):
                    self._take(state)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                place = self.folder / checkpoint.NAME
                raise UserError(f"{place}: the checkpoint lacks a part of this run's state: delete it") from error
        own = self.identity, len(self.curve)
        if self.world.broadcast(lambda: own) != own:
            remedy = "give all processes the same images and results_dir, on a disk that they share"
            raise UserError(f"process {self.world.rank} has other images or checkpoints than process 0: {remedy}")

    def _checkpoint(self) -> dict[str, Any] | None:
        try:
            self.world.broadcast(lambda: checkpoint.settle(self.folder, self.on_warning))
            return checkpoint.load(self.folder, self.identity)
        except UserError:
            if not self.config.force:
                raise
            return None  # it is replaced by this run's first

    def _take(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        self.curve = state["curve"]
        self.error_stop = replace(self.error_stop, **state.get("error_stop", {}))
        self.saved = len(self.curve)
        self.branched_from = state.get("branched_from")
        threads.take(state.get("threads"))
        self._note_threads(state)

    def _note_threads(self, state: dict[str, Any]) -> None:
        before, now = state.get("threads"), torch.get_num_threads()
        self.threads_before = state.get("threads_before", [])
        if self.device.type == "cpu" and before not in (None, now):
            self.threads_before = [*self.threads_before, before]
            self.on_warning(
                f"it began on {before} thread{'s' * (before > 1)} and goes on on {now}: the bits are no longer those of"
                " one run (is OMP_NUM_THREADS set?)"
            )

    def run(self) -> None:
        """Trains to the last epoch, to `train.stop_at_train_error`, or until the loss is not finite (`diverged`)."""
        for epoch in range(len(self.curve), self.config.train.epochs):
            if self.error_stop.reached is not None:
                return
            torch.manual_seed(epoch_seed(self.config.seed, epoch, "dropout"))
            with advised(self.config, self.config.train.micro_batch or self.config.train.batch_size):
                running, events = self._epoch(epoch)
            self.curve.append(self._row(epoch, running, events))
            if not self.diverged and time.perf_counter() >= self.save_due:
                self._save()
            self.on_epoch(self.curve[-1])
            if self.diverged:
                return

    def _epoch(self, epoch: int) -> tuple[RunningLoss, list[str]]:
        self.network.train()
        running, events = RunningLoss.on(self.device), []
        snapshots: deque[tuple[int, Snapshot]] = deque()  # at steps that the device may not have done yet
        start, before = time.perf_counter(), (0.0, 0)  # summed loss and images at the last stand
        for step, (images, labels) in enumerate(self._batches(epoch)):
            done = epoch * self.steps + step
            events += self.schedule.events(done)
            self.schedule.set_rates(self.optimizer.param_groups, done)
            self.step(images, labels, running, self._images_of(step))
            last = step == self.steps - 1
            if last or step % REPORT_STEPS == REPORT_STEPS - 1:
                snapshots.append((step, running.snapshot(self.world)))
            while len(snapshots) > (0 if last else SNAPSHOTS_BEHIND[self.device.type]):
                at, snapshot = snapshots.popleft()
                loss, error = snapshot.means()
                running.seconds = time.perf_counter() - start  # when the device has done the step
                recent = (loss * snapshot.images - before[0]) / (snapshot.images - before[1])
                before = loss * snapshot.images, snapshot.images
                speed = snapshot.images / running.seconds
                self.on_progress(Progress(epoch, at, self.steps, loss, error, speed, recent))
                if not math.isfinite(loss):
                    self.diverged = True
                    return running, [*events, NOT_FINITE]
                self.error_stop.look(epoch, snapshot.images, error)
        return running, [*events, *filter(None, [self.error_stop.event])]

    def _evaluate(self, split: Split) -> Evaluation:
        with advised(self.config, images_at_once(self.config.train)):
            return self.evaluate("validation", split)

    def evaluate(self, what: str, split: Split, ten_crops: bool = False, at_most: int | None = None) -> Evaluation:
        """Evaluates as `repro.train.evaluation.evaluate` does, and tells `on_evaluation`."""
        told = partial(self.on_evaluation, what)
        return evaluate(
            self.network, split, self.pixels, self.config.train, ten_crops, at_most, self.world, on_crops=told
        )

    def _row(self, epoch: int, running: RunningLoss, events: list[str]) -> dict[str, Any]:
        loss, error = running.snapshot(self.world).means()
        classes = len(self.data.classes)
        done = epoch * self.steps + -(-running.images // self.config.train.batch_size)  # fewer than all: it diverged
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": done,
            "lr": self.schedule.lr(done - 1),
            "train_loss": loss,
            "train_top1": error,
            "images_per_second": running.images / running.seconds,
            "minutes": running.seconds / 60 + (self.curve[-1]["minutes"] if self.curve else 0.0),
        }
        if not self.diverged:
            result = self._evaluate(self.data.val)
            if not math.isfinite(result.loss):  # the last update broke the weights; the training loss is older
                self.diverged = True
                return row | {"events": "; ".join([*events, NOT_FINITE])}
            row |= {"val_loss": result.loss, "val_top1": result.top1, "val_top5": result.top5}
            if abs(result.loss - math.log(classes)) < NOT_MOVED * math.log(classes):
                events.append("loss at ln(classes)")
                self.on_warning(
                    f"epoch {epoch + 1}: the validation loss, {result.loss:.3f}, is no better than guessing among"
                    f" {classes} classes, {math.log(classes):.3f}"
                )
            if self.minival is not None and self.config.schedule.kind is ScheduleKind.plateau:
                self.schedule.observe(self._evaluate(self.minival).top1)
        return row | {"events": "; ".join(events)}

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return training_batches(self.config, self.train_split, self.pixels, epoch, self.world)

    def _images_of(self, step: int) -> int:
        """Images of a step's batch, over all processes."""
        batch = self.config.train.batch_size
        return min(batch, len(self.train_split.labels) - step * batch)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds: all that the next epoch depends on."""
        return self.identity | {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "error_stop": self.error_stop.state(),
            "curve": self.curve,
            "threads": torch.get_num_threads(),
            "threads_before": self.threads_before,
            "branched_from": self.branched_from,
        }

    def _save(self) -> None:
        if not self.world.is_main:
            return
        start = time.perf_counter()
        checkpoint.save(self.folder, self.state())
        self.saved, end = len(self.curve), time.perf_counter()
        small = (self.folder / checkpoint.NAME).stat().st_size <= SMALL_CHECKPOINT
        self.save_due = end if small else end + (end - start) / SAVING_SHARE
