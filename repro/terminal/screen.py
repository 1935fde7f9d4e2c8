"""The terminal of a run: its plan, bars with the time left, a line an epoch, warnings, and its end."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from repro.config import Config
from repro.distributed import from_environment
from repro.pace import EPOCHS_OF_END, Pace, span, timings_of
from repro.record import COMPLETE, Record
from repro.terminal import plan as plans
from repro.text import wrapped

if TYPE_CHECKING:
    from repro.data.store import ImageData
    from repro.request import Run
    from repro.train.loop import Progress as Step
    from repro.train.loop import Training

QUIET_SECONDS = 30.0
"""The longest silence of a run where there is no bar, up to the time between two looks at its loss."""
LABEL = 9  # columns, of what a line of the plan is about


class Bars(Progress):
    """Bars of what goes on, over one line of numbers; both fit into 60 columns."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields what is drawn."""
        yield self.make_tasks_table(self.tasks)
        if self.numbers:
            yield Text(self.numbers, no_wrap=True, overflow="ellipsis")


class Screen:
    """The terminal of one run, on stdout, warnings included; stderr is for what ends it.

    On a terminal, text is broken between words; elsewhere each line is left whole, and a line every half a minute
    stands for the bars. All text is shown as it is: nothing in it is markup.
    """

    def __init__(self, place: str = "") -> None:
        """`place` is the run's among those of a sweep, such as `3 of 9`."""
        self.console = Console(highlight=False)
        self.on_terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.on_terminal,
            speed_estimate_period=600,  # seconds; over a few of them, the validations would make it jump
        )
        self.place, self.pace = place, Pace()
        self.asked: tuple[str, plans.Lines] | None = None  # what has been said
        self.epochs, self.fresh = 0, False
        self.rest: float | None = None  # seconds, once they are known
        self.started = self.told = time.monotonic()
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, text: str, style: str = "", indent: int = 0, whole: bool = False) -> None:
        """A line, its rest indented where it is broken; `whole` ones, such as commands, are left to the terminal."""
        encoding = self.console.encoding
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        if self.on_terminal and not whole:
            text = wrapped(text, self.console.width, indent)
        self.console.print(Text(text, style), soft_wrap=True)
        self.told = time.monotonic()

    def first_words(self, config: Config, words: Sequence[str]) -> None:
        """Says what these words of a command ask for, where it is known before PyTorch is read in."""
        if from_environment().is_main:
            self._ask(plans.by_words(config, words))

    def plan(self, run: "Run") -> None:
        """Says what is going to run, before anything heavy."""
        self.started, self.epochs = time.monotonic(), run.config.train.epochs
        self._ask(plans.asked(run.label, run.config, run.difference))
        self._lines(plans.before(run))

    def _ask(self, asked: tuple[str, plans.Lines] | None) -> None:
        if asked is None or asked == self.asked:
            return
        self.asked, (title, lines) = asked, asked
        self.say(f"{self.place}: {title}" if self.place else title, "bold")
        self._lines(lines)

    def images(self, config: Config, data: "ImageData") -> None:
        """Says how many images there are."""
        self._lines(plans.of_images(config, data))

    def begin(self, training: "Training") -> None:
        """Says what is known now, and from which epoch the run goes on; draws the bar."""
        self.fresh = not training.curve
        self._lines(plans.of_training(training))
        if training.curve:
            self.say(f"going on after epoch {len(training.curve)} of {self.epochs}")
        done = len(training.curve) * training.steps
        self.tasks["training"] = self.bars.add_task("training", total=training.schedule.steps, completed=done)
        self.bars.start()

    def progress(self, step: "Step") -> None:
        """Moves the bar; says once how long the run takes."""
        done = step.epoch * step.steps + step.step + 1
        self.bars.numbers = (
            f"loss {step.loss:.3f}, training error {step.error:.1f} %, {step.images_per_second:.0f} images/s"
        )
        self._move("training", done, f"training, epoch {step.epoch + 1} of {self.epochs}")
        seconds, first = self.pace.look(done), self.rest is None
        if seconds is not None:
            self.rest = seconds * ((self.epochs + EPOCHS_OF_END) * step.steps - done)
            if first:
                self.say(f"{span(self.rest)} to go, at {step.images_per_second:.0f} images/s")
        self._speak("training", f"step {step.step + 1} of {step.steps}, {self.bars.numbers}")

    def evaluation(self, what: str, done: int, total: int) -> None:
        """Moves the bar of a validation or of the last measuring, which goes through so many crops."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total)
        self._move(what, done, what)
        self._speak(what, f"{done:,} of {total:,} crops")
        if done == total:
            self.bars.remove_task(self.tasks.pop(what))

    def epoch(self, row: dict[str, Any]) -> None:
        """The line of an epoch; the validation error is the centre crop's."""
        events = f"  ({row['events']})" if row["events"] else ""
        validation = row.get("val_top1", math.nan)
        self.say(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['train_loss']:.3f}  training error"
            f" {row['train_top1']:.1f} %  validation error {validation:.1f} %"
            f"  {row['images_per_second']:.0f} images/s{events}",
            indent=4,
        )

    def warning(self, text: str) -> None:
        """Says a warning in yellow."""
        self.say(f"warning: {text}", "yellow", indent=4)

    def evaluating(self) -> None:
        """Training is over; ten crops take a while."""
        if "training" in self.tasks:
            self.bars.remove_task(self.tasks.pop("training"))
        self.bars.numbers = "measuring the errors at the end"

    def skipped(self, record: Record, note: str = "") -> None:
        """A run that was there already, and what to know about its weights."""
        self.say(f"{record.folder}: done already ({record.status}){note}; force=true runs it again", indent=4)

    def stopped(self, done: int, saved: int) -> None:
        """Ctrl-C, after so many epochs, of which the checkpoint has so many."""
        self.bars.stop()
        goes_on = "goes on from there" if saved == done else f"goes on after epoch {saved}"
        self.say(f"stopped after epoch {done} of {self.epochs}: the same command {goes_on}")

    def ended(self, run: "Run", record: Record) -> None:
        """Shows what came out, and keeps how long it took for the next such run."""
        from repro.terminal import end

        self.bars.stop()
        if self.fresh and record.status == COMPLETE:
            epochs = math.ceil(record.epochs_to_train_error or self.epochs)
            timings_of(run).add(run, time.monotonic() - self.started, epochs=epochs)
        shown = end.of_run(record, run.config.results_dir, run.command[1:])
        self.say(shown.title, "bold")
        self.console.print(shown.table)
        for line in shown.lines:
            self.say(line, whole=True)

    def _lines(self, lines: Iterable[tuple[str, str]]) -> None:
        last = ""
        for about, text in lines:
            self.say(f"  {'' if about == last else about:<{LABEL}}{text}", indent=LABEL + 2)
            last = about

    def _move(self, name: str, done: int, description: str) -> None:
        self.bars.update(self.tasks[name], completed=done, description=description)

    def _speak(self, name: str, numbers: str) -> None:
        """A line in place of the bars, where the last one was half a minute ago."""
        if self.on_terminal or time.monotonic() - self.told < QUIET_SECONDS:
            return
        task = next(task for task in self.bars.tasks if task.id == self.tasks[name])
        left = "" if task.time_remaining is None else f", {span(task.time_remaining)} left"
        self.say(f"{task.description}: {numbers}{left}")
