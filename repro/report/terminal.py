"""What a run shows on the terminal: a progress bar, a line an epoch, warnings."""

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from repro.record import Record
from repro.train.loop import Progress as Step
from repro.train.loop import Training


class Screen:
    """The terminal of one run, on stdout; stderr is for what goes wrong."""

    def __init__(self) -> None:
        """The bar appears on a terminal only; elsewhere the epochs' lines tell the progress."""
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  error {task.fields[error]} %  {task.fields[speed]} images/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.epochs = 0

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, title: str, training: Training) -> None:
        """Says what runs, and from which epoch."""
        self.epochs = training.config.train.epochs
        self.console.print(f"[bold]{escape(title)}[/]: {training.device.type}, {training.config.train.precision.name}")
        if training.curve:
            self.console.print(f"going on after epoch {len(training.curve)} of {self.epochs}")
        total = training.schedule.steps
        done = len(training.curve) * training.steps
        self.task = self.bar.add_task("", total=total, completed=done, epoch="", loss="-", error="-", speed="-")
        self.bar.start()

    def progress(self, step: Step) -> None:
        """Moves the bar."""
        self.bar.update(
            self.task,
            completed=step.epoch * step.steps + step.step + 1,
            epoch=f"{step.epoch + 1}/{self.epochs}",
            loss=f"{step.loss:.3f}",
            error=f"{step.error:.1f}",
            speed=f"{step.images_per_second:.0f}",
        )

    def epoch(self, row: dict[str, Any]) -> None:
        """The line of an epoch; the validation error is the centre crop's."""
        events = f"  ({row['events']})" if row["events"] else ""
        validation = row.get("val_top1", math.nan)
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['train_loss']:.3f}  training error"
            f" {row['train_top1']:.1f} %  validation error {validation:.1f} %"
            f"  {row['images_per_second']:.0f} images/s{events}"
        )

    def warning(self, text: str) -> None:
        """One yellow line."""
        self.console.print(f"[yellow]warning:[/] {escape(text)}")

    def evaluating(self) -> None:
        """Ends the bar; ten crops take a while."""
        self.bar.stop()
        if self.console.is_terminal:
            self.console.print("measuring centre and ten crops ...")

    def skipped(self, record: Record, weights: bool = True) -> None:
        """A run that was there already; its weights may be gone."""
        without = "" if weights else ", but without its weights"
        told = f"{record.folder}: done already ({record.status}){without}; force=true runs it again"
        self.console.print(told, markup=False)

    def stopped(self, done: int, saved: int) -> None:
        """Ctrl-C, after so many epochs, of which the checkpoint has so many."""
        self.bar.stop()
        goes_on = "goes on from there" if saved == done else f"goes on after epoch {saved}"
        self.console.print(f"stopped after epoch {done} of {self.epochs}: the same command {goes_on}")
