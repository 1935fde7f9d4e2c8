"""Late events: runs whose change sets in late share all that comes before with the baseline, bit for bit.

So the pairs of such an ablation are branches of one trajectory, far sharper than pairs by seed. And where the epochs
before the event differ, other code made one of the two runs, and their difference is not the ablation's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.config import ScheduleKind
from repro.record import Record

SINCE = ("schedule.conv1_lower_at", "schedule.conv1_freeze_at", "augment.color_noise_off_at")
"""Keys that say from which share of the run on something holds."""
AT_A_DROP = ("schedule.drop_biases", "schedule.divisor")
"""Keys that say nothing before the learning rate's first drop."""
DROPS = "schedule.drops"
MEASURED = ("epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5")
"""Columns of the curve that the same computation repeats to the last digit."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Branch:
    """The first `epochs` of `of` that pairs share by their keys, and the seeds whose curves share them, or do not."""

    epochs: int
    of: int
    shared: tuple[int, ...]
    different: tuple[int, ...]


def branch(
    baseline: Mapping[int, Record], arm: Mapping[int, Record], before: Settings, after: Settings
) -> Branch | None:
    """The pairs of an arm by seed, whose settings these are; None where its change is at work from the start.

    Pairs on other numbers of a processor's threads, or of processes, which round otherwise, are left out; and pairs on
    a GPU that do not agree, where no fingerprint of their numerics says that its sums come in a fixed order.
    """
    pairs = {seed: (baseline[seed], arm[seed]) for seed in sorted(baseline.keys() & arm.keys())}
    pairs = {seed: pair for seed, pair in pairs.items() if workers(pair[0]) == workers(pair[1])}
    epochs = shared_epochs(before, after, next(iter(arm.values())).data.train_images) if pairs else None
    if not epochs:
        return None
    same = {seed: _rows(one, epochs) == _rows(other, epochs) for seed, (one, other) in pairs.items()}
    shared = tuple(seed for seed, agree in same.items() if agree)
    different = tuple(seed for seed, (one, _) in pairs.items() if not same[seed] and _repeats(one))
    return Branch(epochs, before["train.epochs"], shared, different) if shared or different else None


def shared_epochs(before: Settings, after: Settings, images: int) -> int | None:
    """Whole epochs before the first event that only one of two runs has; None where they differ from the start."""
    changed = [key for key in before if before[key] != after[key]]
    shares = [share for key in changed for share in _events(key, before, after)]
    if not changed or not shares or any(not _events(key, before, after) for key in changed):
        return None
    steps = -(-images // before["train.batch_size"])
    event: int = round(min(shares) * steps * before["train.epochs"])
    return event // steps


def _events(key: str, before: Settings, after: Settings) -> Sequence[float]:
    """Shares of the run at which a changed key makes a difference; empty where it may from the start."""
    if key in SINCE:
        return [side[key] for side in (before, after) if side[key] is not None]
    if before["schedule.kind"] != ScheduleKind.step.name:
        return []
    if key in AT_A_DROP:
        return [min(side[DROPS]) for side in (before, after) if side[DROPS]]
    return sorted(set(before[DROPS]) ^ set(after[DROPS])) if key == DROPS else []


def workers(run: Record) -> tuple[int, ...]:
    """Returns what decides the order of sums; a GPU's does not depend on the threads of the machine around it."""
    machine = run.machine
    threads = (*(run.threads_before or []), machine.threads)
    return machine.processes, *(threads if machine.device_type == "cpu" else ())


def _repeats(run: Record) -> bool:
    """Tells whether the same run again has the same bits: on a GPU its fingerprint, made twice, says so."""
    return run.machine.device_type == "cpu" or run.numerics is not None


def _rows(run: Record, epochs: int) -> list[list[Any]]:
    return [[row[key] for key in MEASURED] for row in run.curve()[:epochs]]
