"""The comparison behind a table: each ablation against the baseline of the same setup, recipe, device and images."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from repro import stats
from repro.config import Config
from repro.errors import UserError
from repro.experiments import BASELINE, ablations, flatten
from repro.naming import settings as schema_settings
from repro.record import COMPLETE, CROP_MODES, DIVERGED, STOPPED, TEN_CROPS, Data, Record, config_hash

TOPS = ("top1", "top5")
MAIN = (TEN_CROPS, "top1")
MEASURES = tuple((mode, top) for mode in CROP_MODES for top in TOPS)

Measure = tuple[str, str]
"""A crop mode and top1 or top5."""


@dataclass(frozen=True)
class Arm:
    """The runs of one ablation, any status; only complete ones enter a number."""

    name: str
    runs: Sequence[Record]

    @cached_property
    def complete(self) -> dict[int, Record]:
        """The complete runs by seed."""
        return {run.seed: run for run in self.runs if run.status == COMPLETE}

    def seeds(self, status: str) -> list[int]:
        """Seeds of the runs of one status."""
        return [run.seed for run in self.runs if run.status == status]

    def values(self, measure: Measure) -> dict[int, float]:
        """Error in % by seed."""
        mode, top = measure
        return {seed: getattr(getattr(run.metrics, mode), top) for seed, run in self.complete.items()}


@dataclass(frozen=True)
class Effect:
    """An arm against the baseline: difference of each error in percentage points, McNemar's test by crop mode."""

    differences: dict[Measure, stats.Difference]
    mcnemar: dict[str, stats.McNemar | None]


@dataclass(frozen=True)
class Comparison:
    """The arms that may stand in one table, baseline first, then by their effect on ten-crop top-1."""

    setup: str
    recipe: str
    device: str
    device_type: str
    data: Data
    base_hash: str
    arms: Sequence[Arm]
    effects: dict[str, Effect]
    """By arm; none for the baseline itself."""

    def notes(self, arm: Arm) -> list[str]:
        """What a reader must know about an arm's runs: diverged, stopped, unpaired."""
        notes = []
        if diverged := arm.seeds(DIVERGED):
            notes.append(f"{len(diverged)} of {len(arm.runs)} runs diverged ({_seeds(diverged)}), not in the mean")
        if stopped := arm.seeds(STOPPED):
            notes.append(f"stopped before the end, not in the mean: {_seeds(stopped)}")
        if arm.name in self.effects:
            difference = self.effects[arm.name].differences[MAIN]
            if difference.missing_baseline:
                notes.append(f"{_seeds(difference.missing_baseline)} missing in the baseline")
            if missing := set(difference.missing_arm) - {run.seed for run in arm.runs}:
                notes.append(f"{_seeds(missing)} missing here")
        return notes

    def missing_runs(self) -> list[str]:
        """The commands that complete the pairs."""
        seeds = {arm.name: {run.seed for run in arm.runs} for arm in self.arms}
        baseline = seeds.get(BASELINE, set())
        missing = {BASELINE: set().union(*seeds.values()) - baseline}
        missing |= {name: baseline - own for name, own in seeds.items() if name != BASELINE}
        changes = {arm.name: arm.runs[0].difference for arm in self.arms}
        return [
            run_command(self.setup, self.recipe, name, changes.get(name, {}), *sorted(absent))
            for name, absent in missing.items()
            if absent
        ]


def run_command(setup: str, recipe: str, ablation: str, difference: Mapping[str, Any], *seeds: int) -> str:
    """The command that makes these runs; an ablation without a file is spelled out."""
    words = [f"setup={setup}", f"recipe={recipe}"]
    if ablation == BASELINE or ablation in ablations():
        words.append(f"ablation={ablation}")
    else:
        words += [shlex.quote(f"{key}={plain_text(value)}") for key, (_, value) in difference.items()]
    return " ".join(
        ["python -m repro.run", *(["-m"] if len(seeds) > 1 else []), *words, f"seed={','.join(map(str, seeds))}"]
    )


def plain_text(value: Any) -> str:
    """A plain value as one writes it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(plain_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def settings(run: Record) -> dict[str, Any]:
    """What was run: dotted key -> plain value.

    A key that the schema has gained since the run takes its default, which keeps what was; one it lost is left out.
    """
    recorded = flatten(run.config)
    return {key: recorded.get(key, default) for key, default in schema_settings(Config()).items()}


def base_hash(run: Record) -> str:
    """Identifies the settings before the ablation: runs compare only where they share them."""
    return config_hash(settings(run) | {key: before for key, (before, _) in run.difference.items()})


def comparisons(records: Iterable[Record]) -> list[Comparison]:
    """Groups records so that nothing is compared across setups, recipes, devices, images or base configurations.

    Raises UserError where the seeds of one arm were made with different configurations.
    """
    groups = defaultdict(list)
    for run in records:
        machine = run.machine
        key = run.setup, run.recipe, machine.device_type, machine.device, run.data.content_hash, base_hash(run)
        groups[key].append(run)
    return [_comparison(groups[key]) for key in sorted(groups)]


def _comparison(runs: Sequence[Record]) -> Comparison:
    by_name = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed):
        by_name[run.ablation].append(run)
    arms = {name: Arm(name, same) for name, same in by_name.items()}
    for arm in arms.values():
        _check_same_configuration(arm)
    baseline = arms.get(BASELINE, Arm(BASELINE, []))
    effects = {name: effect_of(baseline, arm) for name, arm in arms.items() if name != BASELINE}
    first = runs[0]
    return Comparison(
        first.setup,
        first.recipe,
        first.machine.device,
        first.machine.device_type,
        first.data,
        base_hash(first),
        sorted(arms.values(), key=lambda arm: _place(arm.name, effects.get(arm.name))),
        effects,
    )


def _check_same_configuration(arm: Arm) -> None:
    counts = Counter(config_hash(settings(run)) for run in arm.runs)
    odd = [run for run in arm.runs if config_hash(settings(run)) != counts.most_common(1)[0][0]]
    if odd:
        run = odd[0]
        raise UserError(
            f"{run.folder}: made with another configuration than the other seeds of {arm.name}: run it again:"
            f" {run_command(run.setup, run.recipe, run.ablation, run.difference, run.seed)} force=true"
        )


def effect_of(baseline: Arm, arm: Arm) -> Effect:
    """An arm against another, seed by seed. Both saw the same images."""
    pairs = sorted(baseline.complete.keys() & arm.complete.keys())
    right = {seed: (baseline.complete[seed].correct(), arm.complete[seed].correct()) for seed in pairs}
    return Effect(
        {measure: stats.paired_difference(baseline.values(measure), arm.values(measure)) for measure in MEASURES},
        {
            mode: stats.mcnemar(*({seed: sides[side][mode] for seed, sides in right.items()} for side in (0, 1)))
            for mode in CROP_MODES
        },
    )


def _place(name: str, effect: Effect | None) -> tuple[bool, bool, float, str]:
    """Sorting key: the baseline, then the largest effect first, then the arms without one."""
    size = effect.differences[MAIN].mean if effect else None
    return name != BASELINE, size is None, -(size or 0.0), name


def _seeds(seeds: Collection[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
