"""Each arm at its own best value of a key, such as the learning rate: a search at one seed, then all seeds there.

An ablation that changes the scale of things may owe its loss to the baseline's rate; a suite that says `tune` gives
every arm the same search. What is minimised is never the validation error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from repro.errors import UserError
from repro.experiments import naming, suites
from repro.experiments.compose import compose
from repro.experiments.suites import Suite, Words
from repro.record import COMPLETE, Record


@dataclass(frozen=True)
class TunedArm:
    """What there is of one arm of a suite in one arithmetic: its search by value, its runs at the best one by seed.

    Runs of different processors stand together: to a search another rounding is what another seed is.
    """

    recipe: str
    ablation: str
    arithmetic: str
    """Kind of device and precision, such as `cpu fp32`."""
    search: dict[float, Record]
    """By the values that have been tried; `grid` are all."""
    grid: tuple[float, ...]
    runs: dict[int, Record]

    @property
    def measures(self) -> dict[float, float]:
        """What the search minimises, by value; see `measure`."""
        return {value: measure(run) for value, run in self.search.items()}

    @property
    def devices(self) -> list[str]:
        """The devices of its runs."""
        return sorted({run.machine.device for run in (*self.search.values(), *self.runs.values())})

    @property
    def best(self) -> float | None:
        """The value that the whole search chose; None where it is not whole, or nothing learned."""
        return chosen(self.measures) if len(self.search) == len(self.grid) else None

    @property
    def inside(self) -> bool:
        """Tells whether the best value lies between others, as it must."""
        return self.best is not None and not at_edge(self.best, self.grid)


def measure(run: Record) -> float:
    """What a search minimises: epochs to `train.stop_at_train_error` where that is set, else the minival error in %.

    Infinite where the run did not get there, or diverged.
    """
    if run.config.get("train", {}).get("stop_at_train_error") is not None:
        return math.inf if run.epochs_to_train_error is None else run.epochs_to_train_error
    held_out = run.metrics.minival
    return math.inf if run.status != COMPLETE or held_out is None or held_out.top1 is None else held_out.top1


def chosen(measures: Mapping[float, float]) -> float | None:
    """The value of the smallest measure, of equal ones the smallest value; None where none is finite."""
    best = min(measures, key=lambda value: (measures[value], value))
    return best if math.isfinite(measures[best]) else None


def at_edge(value: float, grid: Iterable[float]) -> bool:
    """Tells whether a value is the smallest or largest of a grid: a better one may lie beyond it."""
    grid = sorted(grid)
    return value in (grid[0], grid[-1])


def tuned_arms(suite: Suite, records: Iterable[Record]) -> list[TunedArm]:
    """The arms of a suite that tunes a key, in its order, for each arithmetic that has runs of it."""
    by_settings: dict[tuple[str, int], dict[str, Record]] = {}
    for run in records:
        if run.setup == suite.setup and run.recipe in suite.recipe:
            by_settings.setdefault((_hash_of(run), run.seed), {})[_arithmetic(run)] = run
    wanted = [(recipe, ablation) for recipe in suite.recipe for ablation in suite.ablation]
    kinds = sorted({kind for same in by_settings.values() for kind in same})
    arms = {kind: [_arm(suite, *name, kind, by_settings) for name in wanted] for kind in kinds}
    return [arm for same in arms.values() if any(arm.search for arm in same) for arm in same]


def _arm(
    suite: Suite, recipe: str, ablation: str, kind: str, found: Mapping[tuple[str, int], Mapping[str, Record]]
) -> TunedArm:
    def records_of(words: Words, seeds: Sequence[int]) -> dict[int, Record]:
        key = _hash(words)
        return {seed: found[key, seed][kind] for seed in seeds if kind in found.get((key, seed), {})}

    first = suite.seed[0]
    run = (f"setup={suite.setup}", *suite.given, f"recipe={recipe}", f"ablation={ablation}")
    search = {value: records_of(words, [first]) for value, words in suites.searched(suite, run).items()}
    whole = {value: same[first] for value, same in search.items() if same}
    arm = TunedArm(recipe, ablation, kind, whole, tuple(search), {})
    if arm.best is None:
        return arm
    return TunedArm(recipe, ablation, kind, whole, arm.grid, records_of(suites.at(suite, run, arm.best), suite.seed))


def _arithmetic(run: Record) -> str:
    return f"{run.machine.device_type} {run.precision}"


def _hash(words: Words) -> str:
    return _comparable(naming.settings(compose(words)))


def _hash_of(run: Record) -> str:
    return _comparable(naming.recorded_settings(run.config))


def _comparable(settings: Mapping[str, object]) -> str:
    """Settings less the precision, which a setup may leave to the device."""
    return repr({key: value for key, value in sorted(settings.items()) if key != naming.PRECISION})


def check_inside(words: str, best: float, grid: Iterable[float]) -> None:
    """Raises UserError where the best value of an arm lies at the edge of the grid; `words` are those of a run."""
    if at_edge(best, grid):
        side = "smaller" if best == min(grid) else "larger"
        raise UserError(
            f"{words}: of the values searched, {best:g} is best, the edge of the grid: add a {side} one to the suite's"
            " tune, and give the same command again"
        )
