"""Those who are told what a run does, as the runner knows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from repro.config import Config
from repro.data.store import ImageData
from repro.record import Record
from repro.request import Run
from repro.train.loop import Progress, Training


class Listener(Protocol):
    """A listener is told what a run does; a terminal is one."""

    def plan(self, run: Run) -> None:
        """Is told the run before anything heavy begins."""

    def images(self, config: Config, data: ImageData) -> None:
        """The images have been found."""

    def begin(self, training: Training) -> None:
        """Training begins, or goes on from a checkpoint."""

    def progress(self, step: Progress) -> None:
        """Some steps have been made."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch has ended; `row` is its line of the curve."""

    def evaluation(self, what: str, done: int, total: int) -> None:
        """So many of so many crops have been evaluated."""

    def evaluating(self) -> None:
        """Training has ended; the final errors are measured."""

    def warning(self, text: str) -> None:
        """Something that the user should know."""

    def skipped(self, record: Record, note: str = "") -> None:
        """The run was done already; `note` is about its weights."""

    def stopped(self, done: int, saved: int) -> None:
        """A signal ended the run after `done` epochs; the checkpoint has `saved` of them."""


class Mirror(Protocol):
    """A copy of a run elsewhere, such as on W&B; whatever it lacks costs a run nothing."""

    @property
    def run_id(self) -> str | None:
        """The name by which it knows the run; None where it has none."""

    @property
    def goes_on(self) -> bool:
        """Tells whether it has the epochs before the checkpoint already."""

    def log_progress(self, step: Progress) -> None:
        """Adds the loss of the last steps to its curve."""

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Adds an epoch to its curves."""

    def finish(
        self, summary: Mapping[str, Any], files: Sequence[Path], worst: Sequence[tuple[str, int, float]]
    ) -> object:
        """Adds the final numbers, copies of these files, and the worst classes: name, images, error in %."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
