"""The runs of a suite or a sweep, most wanted first, within a time: `python -m repro.run suite=gpu minutes=9`.

A run begins only if it would end in time. How long it takes is known from its other seeds, else from the setup's
other runs (their median an epoch), as these were measured on this device. Where nothing was measured, or the run has a
checkpoint, it begins, and its own first steps tell; one that would not end in time is given up, and its checkpoint
kept. What is done is skipped, so the same command goes on. With `at_once` several processes walk the same list.

In a suite that says `branch_from: baseline`, arms that differ from it in late epochs only go on from the checkpoint
that the baseline leaves them on its way, unless they have begun by then; all others begin at their beginning.
"""

import sys

if __name__ == "__main__":  # as in `repro.run`
    from repro import stopping, streams

    stopping.listen()
    streams.outlast()

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple

from rich.console import Console
from rich.progress import track

from repro import record as records
from repro import runner, stopping, tracking
from repro.branching import epochs_shared, plant
from repro.command import exit_code, exit_code_of_run, key_of, own_words, warn
from repro.config import Config, DataConfig
from repro.distributed import from_environment
from repro.errors import Taken, Unusable, UserError
from repro.evidence import rate_search
from repro.experiments import suites, sweep
from repro.experiments.compose import compose
from repro.pace import Clock, Timings, seconds_left, span, timings_of
from repro.request import Run, request
from repro.terminal.end import of_sweep
from repro.terminal.screen import Screen
from repro.text import counted
from repro.threads import cores
from repro.train import checkpoint
from repro.train.loop import Progress, Training

RUN = str(Path(__file__).with_name("run.py"))


class OutOfTime(Exception):
    """A run would not end in time.

    `rest` is how many seconds more it would take; `seconds` how many in all, None where its beginning was not seen.
    """

    def __init__(self, rest: float, seconds: float | None) -> None:
        super().__init__()
        self.rest, self.seconds = rest, seconds


Branches = Mapping[Path, Sequence[Run]]
Warn = Callable[[str], object]


class Watch(Screen):
    """The terminal of a run, which ends it where its own steps say that it would take too long."""

    def __init__(self, clock: Clock, run: Run, branches: Sequence[Run], place: str) -> None:
        super().__init__(place)
        self.run, self.branches = run, branches
        self.shared: dict[int, list[Run]] = {}
        self.clock, self.skipped_one = clock, False
        self.training: Training | None = None

    def __exit__(self, *error: object) -> None:
        """Lets go of the training, which holds this screen: a GPU's memory would stay until the next collection."""
        self.training = None
        super().__exit__(*error)

    def skipped(self, record: records.Record, note: str = "") -> None:
        """Silent: a suite says once how many are done."""
        self.skipped_one = True

    def begin(self, training: Training) -> None:
        """Notes after which epochs other runs branch from it."""
        self.training = training
        self.shared = epochs_shared(self.run, self.branches, len(training.train_split.labels))
        super().begin(training)

    def epoch(self, row: dict[str, Any]) -> None:
        """Leaves the state of this epoch to the runs that go on from it."""
        super().epoch(row)
        for arm in self.shared.get(row["epoch"], []):
            assert self.training is not None
            plant(arm, self.run, self.training)

    def progress(self, step: Progress) -> None:
        """Raises OutOfTime where the rest, the last evaluation included, takes longer than there is time."""
        super().progress(step)
        if self.rest is not None and self.rest > self.clock.left:
            whole = time.monotonic() - self.started + self.rest
            raise OutOfTime(self.rest, whole if self.fresh else None)


def start(words: Sequence[str], started: float) -> int:
    """Runs a suite or a sweep from the words of a command line; returns the exit code.

    Says at last what came out and what is left. `started` is when the command began, on `time.monotonic`'s clock.
    Raises UserError where a word means nothing.
    """
    own, rest = own_words(words, suites.OWN_WORDS)
    clock, at_once = Clock(started + 60 * _positive("minutes", own)), _at_once(own)
    if from_environment().size > 1 and suites.OWN_WORDS.keys() & set(map(key_of, words)):
        raise UserError("minutes= and at_once= are for one process: leave them out, or leave torchrun out")
    first = from_environment().is_main
    asked = requests(rest)
    again = math.isfinite(clock.deadline) or at_once > 1 or suites.tuned_key(rest) is not None
    if again and any(run.config.force for run in asked.wanted):
        raise UserError(
            "force=true makes runs over and over with minutes=, at_once= or a suite that tunes a key: choose another"
            " results_dir"
        )
    if first and (outlook := _outlook(asked.wanted, at_once)):
        Screen().say(f"  {outlook}", indent=sweep.INDENT)
    code, asked = _make_all(rest, asked, clock, at_once)
    if not stopping.is_stop(code) and first and asked.wanted:
        Console(highlight=False).print(of_sweep(asked.wanted))
        Screen().say(summary(sweep.name_of(rest), asked.wanted, 60 * float(own["minutes"]), at_once))
    return max(code, 2 if asked.refused else 0)


def _make_all(words: Sequence[str], asked: "Requests", clock: Clock, at_once: int) -> tuple[int, "Requests"]:
    """Makes the runs that are asked for, and those that follow from them, as a search is done: exit code, and all."""
    code, made, told = 0, -1, set[str]()
    while True:
        for reason in asked.refused if from_environment().is_main else ():
            if reason not in told:
                print(f"error: {reason}", file=sys.stderr)
        told |= set(asked.refused)
        if len(asked.wanted) == made or stopping.is_stop(code):
            return code, asked
        made = len(asked.wanted)
        code = max(code, _several(words, clock, at_once) if at_once > 1 else work(asked.wanted, asked.branches, clock))
        asked = requests(words)


def _at_once(own: dict[str, str]) -> int:
    value = _positive("at_once", own)
    if not value.is_integer():
        raise UserError(f"at_once={own['at_once']}: must be a whole number")
    if value > max(2, cores()):
        raise UserError(f"at_once={own['at_once']}: each run takes a core at least, and here are {cores()}")
    return int(value)


def _positive(key: str, own: dict[str, str]) -> float:
    try:
        value = float(own[key])
    except ValueError:
        value = math.nan
    if not value > 0:
        raise UserError(f"{key}={own[key]}: must be a number above 0")
    return value


class Requests(NamedTuple):
    """The runs that a suite's words ask for."""

    wanted: list[Run]
    """Most wanted first."""
    refused: list[str]
    """Why some runs cannot be; once, where it is the same for every seed."""
    branches: Branches
    """By the folder of a run, those that may go on from its checkpoints."""


def requests(words: Sequence[str], warn: Warn = warn) -> Requests:
    """Composes every run. UserError for a value that cannot be, before any run."""
    wanted: list[Run] = []
    refused: dict[str, None] = {}
    branches: dict[Path, list[Run]] = {}
    best = partial(_best, refused=refused, warn=warn)
    asked, console = suites.runs(words, best=best), Console(stderr=True)
    hidden = len(asked) < sweep.MANY or not console.is_terminal
    bar = track(asked.items(), "reading configurations", console=console, transient=True, disable=hidden)
    with stopping.raised():  # so that the bar gives the cursor back
        for words_of_run, words_of_base in bar:
            _check(words_of_run)
            try:
                wanted.append(_request(words_of_run, warn))
                if words_of_base is not None:
                    branches.setdefault(_request(words_of_base, warn).folder, []).append(wanted[-1])
            except UserError as error:
                refused[str(error)] = None
    return Requests(wanted, list(refused), branches)


def _best(search: suites.Search, refused: dict[str, None], warn: Warn) -> float | None:
    """The best value of a search that is done; one at the edge of the grid is among what is refused."""
    measures: dict[float, float] = {}
    try:
        for value, words in search.items():
            run = _request(words, warn)
            if not _is_done(run):
                return None
            measures[value] = rate_search.measure(records.read(run.folder))
        best = rate_search.chosen(measures)
        if best is not None:
            rate_search.check_inside(" ".join(words), best, measures)
        return best
    except UserError as error:
        refused[str(error)] = None
        return None


def _check(words: tuple[str, ...]) -> None:
    """UserError for words of a run that do not compose; whether its ablation applies is asked later."""
    seed, others = _split(words)
    _config(others)
    if seed is not None and (not seed.isdecimal() or len(seed) > len("999999999")):
        compose(words)  # says what is wrong, if it is


def _request(words: tuple[str, ...], warn: Warn) -> Run:
    """A run; what seeds of one arm share is found once."""
    seed, others = _split(words)
    arm = _arm(others, warn)
    if seed is None:
        return arm
    if not seed.isdecimal():  # such as '0' in quotes
        return _arm(words, warn)
    config = replace(arm.config, seed=int(seed))
    return replace(arm, config=config, plain=arm.plain | {"seed": int(seed)}, command=(RUN, *words))


def _split(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The value of `seed=`, if there is one, and the other words."""
    seeds = [word.removeprefix("seed=") for word in words if word.startswith("seed=")]
    return next(iter(seeds), None), tuple(word for word in words if not word.startswith("seed="))


@cache
def _config(words: tuple[str, ...]) -> Config:
    return compose(words)


@cache
def _arm(words: tuple[str, ...], warn: Warn) -> Run:
    return request(_config(words), words, (RUN, *words), warn)


def work(wanted: Sequence[Run], branches: Branches, clock: Clock) -> int:
    """Makes the runs that are not done, as long as there is time; returns the highest exit code.

    Where the images of one cannot be used, no other run that needs the same ones begins.
    """
    codes, unusable = [0], list[DataConfig]()
    for number, run in enumerate(wanted, 1):
        if run.config.data in unusable:
            continue
        place = f"{number} of {len(wanted)}"
        codes.append(exit_code_of_run(partial(_make, run, branches.get(run.folder, ()), clock, place, unusable)))
        # Ctrl-C ends a suite too; and of processes that share a run none may go on alone
        if stopping.is_stop(codes[-1]) or (codes[-1] and from_environment().size > 1):
            break
    return max(codes)


def _make(run: Run, branches: Sequence[Run], clock: Clock, place: str, unusable: list[DataConfig]) -> None:
    """One run, unless it is done, another process makes it, or it would not end in time.

    Adds its images to the `unusable` ones, and raises Unusable, where they are.
    """
    timings = timings_of(run)
    if not _is_done(run) and not _fits(run, timings, clock):
        return
    screen = Watch(clock, run, branches, place)
    try:
        with screen:
            record = runner.run(run, screen, tracking.of_run)
            if record is None or screen.skipped_one:
                return
            screen.ended(run, record)
    except Taken:
        return
    except Unusable:
        unusable.append(run.config.data)
        raise
    except OutOfTime as error:
        if error.seconds is not None:
            timings.add(run, error.seconds, guess=True)
        print(f"{run.folder}: would take {span(error.rest)} more, left for another call")


def _is_done(run: Run) -> bool:
    """Tells whether there is a record of this very run that ended."""
    try:
        record = records.read(run.folder) if records.exists(run.folder) else None
    except UserError:  # damaged: the runner says so, or replaces it
        return False
    return record is not None and record.status != records.STOPPED and run.is_of(record)


def _fits(run: Run, timings: Timings, clock: Clock) -> bool:
    if clock.left <= 0:
        return False
    if checkpoint.exists(run.raw):
        return True
    return (timings.estimate(run) or 0.0) <= clock.left


def _silent(_: str) -> None:
    pass


def _left(wanted: Sequence[Run]) -> tuple[list[Run], list[float]]:
    """Lists the runs that are not done, and the seconds that are left of those of them that were measured."""
    left = [run for run in wanted if not _is_done(run)]
    return left, [length for run in left if (length := seconds_left(run)) is not None]


def _outlook(wanted: Sequence[Run], at_once: int) -> str:
    """Says how many runs are done, and how long the others take by what was measured; nothing where neither is."""
    left, known = _left(wanted)
    done = f"done already: {len(wanted) - len(left)} of {len(wanted)}" if len(left) < len(wanted) else ""
    some = "" if len(known) == len(left) else f" for {len(known)} of them"
    return "; ".join(filter(None, (done, f"{_wall(known, at_once)}{some}, as measured here" if known else "")))


def _wall(lengths: Sequence[float], at_once: int) -> str:
    """Says how long runs of so many seconds take, so many at once: each was measured beside the others of its day."""
    count = min(at_once, len(lengths))
    return span(max(sum(lengths) / count, *lengths)) + (f" with {count} at once" if count > 1 else "")


def summary(name: str, wanted: Sequence[Run], seconds: float, at_once: int = 1) -> str:
    """Says how many runs are done, how long the others take by what was measured, and how to go on."""
    left, known = _left(wanted)
    told = f"{name}: {len(wanted) - len(left)} of {counted(len(wanted), 'run')} done"
    if not left:
        return told
    rest = f", {_wall(known, at_once)}" if known else ""
    unknown = f", {len(left) - len(known)} of them not measured yet" if len(known) < len(left) else ""
    longer = sum(length > seconds for length in known)
    remedy = f" ({longer} of them with more minutes: the longest takes {span(max(known))})" if longer else ""
    return f"{told}, {len(left)} left{rest}{unknown}: the same command goes on{remedy}"


def _several(words: Sequence[str], clock: Clock, count: int) -> int:
    """The same list walked by so many processes, each leaving alone what another makes; their highest exit code."""
    command = [sys.executable, "-m", "repro.campaign", str(clock.deadline), *words]
    own_id = os.environ.pop("WANDB_RUN_ID", None)  # is for one run, and the first process makes one at least
    environments = [os.environ | ({"WANDB_RUN_ID": own_id} if own_id and not number else {}) for number in range(count)]
    processes: list[subprocess.Popen[bytes]] = []
    readers: list[Thread] = []
    sys.stdout.flush()  # the readers write below it
    stops: list[int] = []
    with stopping.raised(), _open_until_the_end() as stdin:
        try:
            for number, environment in enumerate(environments, 1):
                with stopping.held():  # one that has started is in the list
                    child = subprocess.Popen(
                        command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                    )
                    processes.append(child)
                    readers.append(Thread(target=_tell, args=(number, child.stdout)))
                    readers[-1].start()
            codes = _ended(processes)
        except KeyboardInterrupt as stop:
            stops = [stopping.code_of(stop)]
            codes = _stopped(processes, stops[0])
    for reader in readers:
        reader.join()
    for number, code in enumerate(codes, 1):
        if code < 0:
            print(f"error: process {number} ended by {signal.Signals(-code).name}", file=sys.stderr)
    return max(*stops, *(code if code >= 0 else 128 - code for code in codes), 0)


@contextmanager
def _open_until_the_end() -> Iterator[int]:
    """A pipe for the stdin of children, in which nothing is written: its end tells them that this process has ended."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def _end_with_parent() -> None:
    """Waits for the end of stdin, and then ends this process as SIGTERM does: what it has is filed."""
    while os.read(0, 1):  # not by `sys.stdin`, whose lock a thread must not hold when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _ended(processes: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    return [process.wait() for process in processes]


def _stopped(processes: Sequence["subprocess.Popen[bytes]"], code: int) -> list[int]:
    """Hands a signal on, and waits until each has filed what it has; another one that comes meanwhile is handed on."""
    for process in processes:
        process.send_signal(code - 128)
    try:
        return _ended(processes)
    except KeyboardInterrupt as stop:
        return _stopped(processes, stopping.code_of(stop))


def _tell(number: int, lines: IO[bytes]) -> None:
    with lines:
        for line in lines:
            sys.stdout.buffer.write(f"[{number}] ".encode() + line)
            sys.stdout.buffer.flush()


def main() -> None:
    """Makes runs as one process of `at_once`, by the deadline, on a clock that all share, and the words."""
    Thread(target=_end_with_parent, daemon=True).start()
    deadline, *words = sys.argv[1:]
    wanted, _, branches = requests(words, _silent)  # the process that started this one has said it
    sys.exit(stopping.end(work(wanted, branches, Clock(float(deadline)))))


if __name__ == "__main__":
    sys.exit(exit_code(main))
