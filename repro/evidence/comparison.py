"""The comparison behind a table: each arm against the baseline that differs from it by the arm's own keys alone."""

import math
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from repro.config import Config
from repro.evidence import simultaneous, stats
from repro.evidence.branches import Branch, branch, shared_epochs, workers
from repro.evidence.simultaneous import Simultaneous
from repro.experiments import naming
from repro.experiments.folder import BASELINE, EXPERIMENTS
from repro.experiments.registry import ablations
from repro.record import CENTRE, COMPLETE, CROP_MODES, DIVERGED, STOPPED, TEN_CROPS, Data, Record, config_hash

OWN_RESULTS = EXPERIMENTS.parent / "results"
"""The project's."""
TOPS = ("top1", "top5")
TOP_WORDS = {"top1": "top-1", "top5": "top-5"}
CROP_WORDS = {CENTRE: "centre crop", TEN_CROPS: "ten crops"}
MAIN = (TEN_CROPS, "top1")
MEASURES = tuple((mode, top) for mode in CROP_MODES for top in TOPS)
NOT_MOVED = 0.01
"""A loss this near that of guessing, as a share of it, has not moved."""
LONG_STALL = 0.1
"""A run that was at chance for this share of its epochs is told: its error is of a shorter training."""

Measure = tuple[str, str]
"""A crop mode and top1 or top5."""


@dataclass(frozen=True)
class Arm:
    """The runs of one ablation, any status; only complete ones that learned something enter a number."""

    name: str
    runs: Sequence[Record]
    keys: Collection[str] = ()
    """By which its runs differ from the baseline's."""

    @cached_property
    def complete(self) -> dict[int, Record]:
        """The complete runs by seed."""
        return {run.seed: run for run in self.runs if run.status == COMPLETE}

    @cached_property
    def learned(self) -> dict[int, Record]:
        """The complete runs that left chance, by seed."""
        return {seed: run for seed, run in self.complete.items() if not at_chance(run)}

    @property
    def at_chance(self) -> list[int]:
        """Seeds of the complete runs that did not."""
        return sorted(self.complete.keys() - self.learned.keys())

    @property
    def commits(self) -> set[str]:
        """The commits that made the runs, shortened; `+` marks files that differed from them."""
        codes = {(run.code.commit, run.code.dirty) for run in self.runs}
        return {f"{(commit or 'unknown')[:7]}{'+' if dirty else ''}" for commit, dirty in codes}

    def seeds(self, status: str) -> list[int]:
        """Seeds of the runs of one status."""
        return [run.seed for run in self.runs if run.status == status]

    def values(self, measure: Measure) -> dict[int, float]:
        """Error in % by seed, of the runs that learned; none where it is not measured."""
        mode, top = measure
        errors = {seed: getattr(getattr(run.metrics, mode), top) for seed, run in self.learned.items()}
        return {seed: error for seed, error in errors.items() if error is not None}


def at_chance(run: Record) -> bool:
    """Tells whether a complete run ended as it began: one answer to every image, or losses of guessing on both sets.

    Its error is the share of one class, whatever the seed, and says nothing of how much worse the net is. Where all of
    its answers are right, the images are of one class.
    """
    if run.metrics.answers == 1 and run.metrics.centre.top1:
        return True
    guessing = _guessing(run)
    losses = (run.metrics.val_loss, run.metrics.train.loss)
    return all(loss is not None and abs(loss - guessing) <= NOT_MOVED * guessing for loss in losses)


def _guessing(run: Record) -> float:
    """Validation loss of guessing: older records do not say how often each class is, and count as balanced."""
    return math.log(run.data.classes) if run.data.guessing_loss is None else run.data.guessing_loss


def stuck_words(run: Record) -> str:
    """Says how a run that did not learn shows it."""
    if run.metrics.answers == 1:
        return "one answer to every validation image"
    known = run.data.guessing_loss
    return f"the loss stayed {f'ln({run.data.classes})' if known is None else f'that of guessing, {known:.3f}'}"


@dataclass(frozen=True)
class Effect:
    """An arm against another, paired by seed. Both saw the same images, on the same device, with the same numerics."""

    baseline: Arm
    arm: Arm
    baseline_elsewhere: bool = False
    """Tells whether the baseline of one of its seeds was made by other code, and stands in another comparison."""
    family: "Family | None" = field(default=None, repr=False)
    """The arms that are compared with the same baseline, this one among them; None where it stands alone."""

    @property
    def simultaneous(self) -> Simultaneous | None:
        """The difference of ten-crop top-1 with an interval that holds for all arms of its family at once."""
        return self.family.intervals.get(self.arm.name) if self.family else None

    @cached_property
    def differences(self) -> dict[Measure, stats.Difference]:
        """The difference of each error, in percentage points."""
        return {
            measure: stats.paired_difference(self.baseline.values(measure), self.arm.values(measure))
            for measure in MEASURES
        }

    @cached_property
    def mcnemar(self) -> dict[str, stats.McNemar | None]:
        """McNemar's test by crop mode."""
        sides = self.baseline.learned, self.arm.learned
        right = [{seed: side[seed].correct() for seed in self._pairs} for side in sides]
        return {
            mode: stats.mcnemar(*({seed: bits[mode] for seed, bits in side.items()} for side in right))
            for mode in CROP_MODES
        }

    @property
    def _pairs(self) -> list[int]:
        return sorted(self.baseline.learned.keys() & self.arm.learned.keys())

    @cached_property
    def mixed(self) -> list[int]:
        """Seeds whose two runs may have been computed differently: no fingerprint, and not from one clean commit."""
        both = self.baseline.learned, self.arm.learned
        return [seed for seed in self._pairs if not same_code(*(side[seed] for side in both))]

    @cached_property
    def other_workers(self) -> list[int]:
        """Seeds whose two runs were made by other numbers of a processor's threads, or of processes: bits differ."""
        both = self.baseline.learned, self.arm.learned
        return [seed for seed in self._pairs if len({workers(side[seed]) for side in both}) > 1]

    @cached_property
    def branch(self) -> Branch | None:
        """The epochs that the pairs share where the change sets in late."""
        if not self._pairs:
            return None
        return branch(self.baseline.learned, self.arm.learned, *self._settings)

    @property
    def is_late(self) -> bool:
        """Tells whether the two do the same for some epochs."""
        images = next(iter(self.arm.learned.values())).data.train_images
        before, after = self._settings
        return bool(shared_epochs(before, after, images))

    @property
    def _settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        before, after = (settings(next(iter(side.learned.values()))) for side in (self.baseline, self.arm))
        return before, after

    @property
    def of_other_code(self) -> bool:
        """Tells whether the curves show that other code made the baseline: the difference is not the change's alone."""
        return self.branch is not None and bool(self.branch.different)

    @property
    def outcome(self) -> str | None:
        """`worse`, `better`, or `same` where 0 is not left out, as an ablation's `expects`; None without an answer."""
        difference = self.simultaneous or self.differences[MAIN]
        if difference.mean is None or difference.low is None or self.of_other_code:
            return None
        if not difference.distinguishable:
            return "same"
        return "worse" if difference.mean > 0 else "better"

    @property
    def verdict(self) -> str:
        """The verdict in words, with n."""
        arm, difference = self.arm, self.differences[MAIN]
        if not arm.complete:
            return _ends(arm)
        stuck = f"did not learn ({len(arm.at_chance)} of {len(arm.complete)})" if arm.at_chance else ""
        if not arm.learned:
            return stuck
        if self.baseline.complete and not self.baseline.learned:
            return "the baseline did not learn"
        if self.baseline.runs and not self.baseline.complete:
            return f"the baseline: {_ends(self.baseline)}"
        if self.of_other_code:
            return "no verdict: other code made the baseline"
        if not difference.n and self.baseline_elsewhere:
            return "no verdict: made by other code than the baseline"
        n = self.simultaneous.n if self.simultaneous else difference.n
        words = {None: difference.verdict, "same": f"not distinguishable at n={n}"}
        found = words.get(self.outcome, f"{self.outcome} at n={n}")
        return "; ".join(filter(None, (found, "mixed code" if self.mixed else "", stuck)))


@dataclass(frozen=True)
class Family:
    """The effects of all arms against one baseline."""

    effects: Mapping[str, Effect]
    """By arm."""

    @cached_property
    def intervals(self) -> dict[str, Simultaneous]:
        """By arm; of those that have two runs that learned, beside two of the baseline."""
        whole = {
            name: effect for name, effect in self.effects.items() if effect.arm.learned and not effect.of_other_code
        }
        if not whole:
            return {}
        control = next(iter(whole.values())).baseline.values(MAIN)
        arms = {name: effect.arm.values(MAIN) for name, effect in whole.items()}
        return simultaneous.compare(control, arms, [name for name, effect in whole.items() if effect.branch])


def as_family(effects: Mapping[str, Effect]) -> dict[str, Effect]:
    """The same effects, each with all others."""
    family = Family(effects)
    return {name: replace(effect, family=family) for name, effect in effects.items()}


def _ends(arm: Arm) -> str:
    """Says how the runs of an arm without a complete one ended."""
    counts = {status: len(arm.seeds(status)) for status in (DIVERGED, STOPPED)}
    return ", ".join(f"{status} ({count} of {len(arm.runs)})" for status, count in counts.items() if count)


def _other_code(one: Record, other: Record) -> bool:
    """Tells whether two runs differ in their numerics, and not in device or images."""
    alone = [(run.machine.device, run.data.content_hash) for run in (one, other)]
    return alone[0] == alone[1] and one.numerics != other.numerics


def same_code(one: Record, other: Record) -> bool:
    """Tells whether one clean commit made both runs, where they have no fingerprint (which is then the same)."""
    if one.numerics is not None:
        return True
    return one.code.commit == other.code.commit is not None and not (one.code.dirty or other.code.dirty)


@dataclass(frozen=True)
class Comparison:
    """The arms that may stand in one table, baseline first, then by their effect on ten-crop top-1."""

    setup: str
    recipe: str
    device: str
    device_type: str
    precision: str
    data: Data
    numerics: str | None
    base_hash: str
    """Of the baseline's settings."""
    given: Mapping[str, Any]
    """What the user set by hand in every run, the baseline included: dotted key -> value."""
    arms: Sequence[Arm]
    effects: Mapping[str, Effect]
    """By arm; none for the baseline itself."""
    standing: Mapping[tuple[str, int], Record]
    """By hash of the settings and seed, the record in a run's place, of whatever device, images and numerics."""

    @property
    def runs(self) -> list[Record]:
        """The runs of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def base(self) -> dict[str, Any]:
        """The baseline's settings."""
        return base_settings(self.arms[0].runs[0], self.arms[0].keys)

    def notes(self, arm: Arm) -> list[str]:
        """Says what a reader must know about an arm's runs and pairs."""
        return notes(arm) + (pair_notes(self.effects[arm.name]) if arm.name in self.effects else [])

    @property
    def missing(self) -> dict[str, set[int]]:
        """By arm, the seeds that it lacks and the baseline has; of the baseline, those that any arm has."""
        seeds = {arm.name: {run.seed for run in arm.runs} for arm in self.arms}
        baseline = seeds.get(BASELINE, set())
        missing = {BASELINE: set().union(*seeds.values()) - baseline}
        return missing | {name: baseline - own for name, own in seeds.items() if name != BASELINE}

    def missing_runs(self) -> list[str]:
        """The commands that complete the pairs."""
        wanted: dict[tuple[str, bool], set[int]] = defaultdict(set)
        for name, absent in self.missing.items():
            for seed in absent:
                for made, force in self._ways(name, seed):
                    wanted[made, force].add(seed)
        return [
            f"{self.command(name, *sorted(absent))}{' force=true' if force else ''}"
            for (name, force), absent in wanted.items()
        ]

    def _ways(self, name: str, seed: int) -> list[tuple[str, bool]]:
        """Arms to be made for a missing run, and whether a record stands in their place.

        That is the arm itself; but where the record in its place is of newer code than the runs here, it is these: to
        make the newer one again would leave it as it is.
        """
        runs = [run for arm in self.arms if arm.name == name for run in arm.runs]
        there = self.standing.get((config_hash(settings(runs[0])) if runs else self.base_hash, seed))
        if there is None:
            return [(name, False)]
        beside = {arm.name: run for arm in self.arms for run in arm.runs if run.seed == seed}
        if all(_other_code(run, there) and run.finished < there.finished for run in beside.values()):
            return [(own, True) for own in beside]
        return [(name, True)]

    def command(self, name: str, *seeds: int) -> str:
        """Writes the command that makes these runs of an arm."""
        by_hand = dict(self.given)
        for arm in self.arms:
            if arm.name == name and not _all_named(name):
                by_hand |= {key: after for key, (_, after) in arm.runs[0].difference.items() if key in arm.keys}
        command = run_command(self.setup, self.recipe, name, by_hand, *seeds)
        device = ["train.device=cuda"] if self.device_type == "cuda" else []
        return " ".join([command, *device, *_place_words(self.runs[0])])


def _place_words(run: Record) -> list[str]:
    """`results_dir=` of a run, where it is not the one that a command takes by itself, or the project's."""
    results_dir, here = Path(*run.folder.parts[:-5]), Path.cwd()
    if not run.folder.parts or results_dir.resolve() in (Path(Config.results_dir).resolve(), OWN_RESULTS.resolve()):
        return []
    whole = results_dir.resolve()
    return [shlex.quote(f"results_dir={whole.relative_to(here) if whole.is_relative_to(here) else whole}")]


def notes(arm: Arm) -> list[str]:
    """Says what a reader must know about an arm's runs: diverged, stopped, at chance."""
    notes = []
    if diverged := arm.seeds(DIVERGED):
        notes.append(f"{len(diverged)} of {len(arm.runs)} runs diverged ({_seeds(diverged)}), not in the mean")
    if stopped := arm.seeds(STOPPED):
        notes.append(f"stopped before the end, not in the mean: {_seeds(stopped)}")
    if stuck := arm.at_chance:
        words = f"{len(stuck)} of {len(arm.complete)} runs did not learn ({_seeds(stuck)})"
        how = " or ".join(sorted({stuck_words(arm.complete[seed]) for seed in stuck}))
        notes.append(f"{words}: {how}; not in the mean")
    stalls = {seed: _epochs_at_chance(run) for seed, run in arm.learned.items()}
    late = [f"{epochs} of {of} (seed {seed})" for seed, (epochs, of) in stalls.items() if epochs >= LONG_STALL * of]
    if late:
        notes.append(f"learned late: the loss stayed that of guessing in epochs: {', '.join(late)}")
    return notes


def _epochs_at_chance(run: Record) -> tuple[int, int]:
    """Epochs after which the validation loss was that of guessing, and all."""
    curve, guessing = run.curve(), _guessing(run)
    stalled = [row for row in curve if abs((row["val_loss"] or 0.0) - guessing) <= NOT_MOVED * guessing]
    return len(stalled), len(curve)


def pair_notes(effect: Effect) -> list[str]:
    """Says what a reader must know about the pairs: which are missing, what they share, and other code."""
    baseline, arm, notes = effect.baseline, effect.arm, []
    if missing := arm.learned.keys() - baseline.complete.keys():
        notes.append(f"{_seeds(missing)} missing in the baseline")
    if missing := baseline.learned.keys() - {run.seed for run in arm.runs}:
        notes.append(f"{_seeds(missing)} missing here")
    if (shared := effect.branch) is not None:
        epochs = f"the first {shared.epochs} of {shared.of} epochs"
        if shared.different:
            notes.append(f"must share {epochs} with the baseline and does not ({_seeds(shared.different)})")
        else:
            notes.append(f"shares {epochs} with the baseline ({_seeds(shared.shared)})")
    if effect.other_workers:
        late = "not branches of one trajectory: " if effect.is_late else ""
        notes.append(f"{late}{_other_workers(effect)} ({_seeds(effect.other_workers)})")
    if effect.mixed:
        notes.append(f"mixed code ({_seeds(effect.mixed)})")
    return notes


def _other_workers(effect: Effect) -> str:
    """Says which numbers differ within its pairs."""
    sides = [[side.learned[seed].machine for seed in effect.other_workers] for side in (effect.baseline, effect.arm)]
    shared = all(one.processes == other.processes for one, other in zip(*sides, strict=True))
    return "other threads" if shared else "other processes"


def _all_named(name: str) -> bool:
    return all(part in ablations() for part in name.split("+"))


def run_command(setup: str, recipe: str, name: str, by_hand: Mapping[str, Any], *seeds: int) -> str:
    """The command that makes these runs of an arm, whose keys `by_hand` spells out where it has no file."""
    words = [f"setup={setup}", f"recipe={recipe}"]
    if _all_named(name):
        names = name.replace("+", ",")
        words.append(f"ablation=[{names}]" if "," in names else f"ablation={names}")
    words += [f"{key}={plain_text(value)}" for key, value in by_hand.items()]
    words.append(f"seed={','.join(map(str, seeds))}")
    return " ".join(["python -m repro.run", *(["-m"] if len(seeds) > 1 else []), *map(shlex.quote, words)])


def plain_text(value: Any) -> str:
    """A plain value as one writes it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(plain_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def settings(run: Record) -> dict[str, Any]:
    """Returns what was run: dotted key -> plain value."""
    return naming.recorded_settings(run.config)


def own_keys(run: Record) -> set[str]:
    """The keys by which a run differs from its baseline."""
    return naming.arm(run.difference, settings(run), run.chosen)[1]


def arm_and_keys(run: Record) -> tuple[str, dict[str, Any]]:
    """Returns what `run_command` makes a run from: the name of its arm, and the keys set by hand."""
    name, keys = naming.arm(run.difference, settings(run), run.chosen)
    left = set() if not _all_named(name) else keys
    return name, {key: after for key, (_, after) in run.difference.items() if key not in left}


def base_settings(run: Record, keys: Collection[str]) -> dict[str, Any]:
    """The settings of a run's baseline: its own, but for the keys that are compared."""
    return settings(run) | {key: run.difference[key][0] for key in keys}


def base_hash(run: Record) -> str:
    """Identifies the settings of a run's baseline: runs compare only where they share them."""
    return config_hash(base_settings(run, own_keys(run)))


def comparisons(records: Iterable[Record]) -> list[Comparison]:
    """Groups records so that only like is compared with like.

    The runs of a group share setup, recipe, device, images, numerics, and every setting but those that an arm is
    about; so budget and precision too. There is a group for the baseline of every run, as `naming.arm` says what that
    is. A run is an arm of each group that it fits: `ablation=cosine` is an arm of the plain baseline, and the baseline
    of `ablation=no_lrn schedule.kind=cosine`.
    """
    together = defaultdict(list)
    standing: dict[tuple[str, ...], dict[tuple[str, int], Record]] = defaultdict(dict)
    for run in records:
        together[alike(run)].append(run)
        standing[alike(run)[:3]][config_hash(settings(run)), run.seed] = run
    parts = (part for key, runs in together.items() for part in _comparisons(runs, standing[key[:3]]))
    return sorted(parts, key=_section_order)


def _comparisons(runs: Sequence[Record], standing: Mapping[tuple[str, int], Record]) -> Iterable[Comparison]:
    """Compares runs that are alike but for their settings."""
    hashes = [config_hash(settings(run)) for run in runs]
    bases = {base_hash(run): base_settings(run, own_keys(run)) for run in runs}
    for key, base in bases.items():
        baseline = [run for run, own in zip(runs, hashes, strict=True) if own == key]
        arms: dict[str, list[Record]] = defaultdict(list)
        keys = {}
        for run in runs:
            if (found := _arm_of(run, base)) is not None:
                arms[found[0]].append(run)
                keys[found[0]] = found[1]
        yield _comparison(key, baseline, [Arm(name, runs, keys[name]) for name, runs in arms.items()], standing)


def _section_order(part: Comparison) -> tuple[Any, ...]:
    """Orders by table, then what was run as it is before what was run with keys set by hand."""
    rest = part.device, part.data.content_hash, part.numerics or "", part.base_hash
    return part.setup, part.recipe, part.device_type, len(part.given), *rest


def alike(run: Record) -> tuple[str, ...]:
    """Returns what runs must share to be compared, beside their settings."""
    machine = run.machine
    return run.setup, run.recipe, machine.device_type, machine.device, run.data.content_hash, run.numerics or ""


def _arm_of(run: Record, base: Mapping[str, Any]) -> tuple[str, set[str]] | None:
    """Name and keys of a run beside a baseline of these settings; None where it is no arm of it, or the same."""
    name, keys = naming.arm(run.difference, settings(run), run.chosen)
    if base_settings(run, keys) == base:
        return (name, keys) if keys else None
    return naming.arm_against(base, run.difference, settings(run))


def _comparison(
    base: str, baseline: Sequence[Record], others: Sequence[Arm], standing: Mapping[tuple[str, int], Record]
) -> Comparison:
    arms = [Arm(BASELINE, baseline), *others] if baseline else others
    arms = [replace(arm, runs=sorted(arm.runs, key=lambda run: run.seed)) for arm in arms]
    control = arms[0] if baseline else Arm(BASELINE, [])
    effects = {
        arm.name: Effect(control, arm, any(_other_code(run, standing.get((base, run.seed), run)) for run in arm.runs))
        for arm in arms
        if arm.name != BASELINE
    }
    first = arms[0].runs[0]
    return Comparison(
        first.setup,
        first.recipe,
        first.machine.device,
        first.machine.device_type,
        first.precision,
        first.data,
        first.numerics,
        base,
        {key: after for key, (_, after) in first.difference.items() if key not in arms[0].keys},
        sorted(arms, key=lambda arm: _place(arm.name, effects.get(arm.name))),
        as_family(effects),
        standing,
    )


def _place(name: str, effect: Effect | None) -> tuple[bool, bool, float, str]:
    """Sorting key: the baseline, then the largest effect first, then the arms without one."""
    size = effect.differences[MAIN].mean if effect else None
    return name != BASELINE, size is None, -(size or 0.0), name


def _seeds(seeds: Collection[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
