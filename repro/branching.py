"""Arms whose change sets in late go on from the baseline's checkpoint: what comes before is the same, bit for bit."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from repro import record as records
from repro.errors import Taken
from repro.evidence.branches import shared_epochs
from repro.experiments import naming
from repro.request import Run
from repro.runner import only_one
from repro.train import checkpoint
from repro.train.loop import Training


def epochs_shared(baseline: Run, arms: Iterable[Run], images: int) -> dict[int, list[Run]]:
    """Groups the arms by the whole epochs that they share with the baseline, on so many training images."""
    shared: dict[int, list[Run]] = defaultdict(list)
    before = naming.settings(baseline.config)
    for arm in arms:
        epochs = shared_epochs(before, naming.settings(arm.config), images)
        if epochs and arm.config.seed == baseline.config.seed:
            shared[epochs].append(arm)
    return shared


def plant(arm: Run, baseline: Run, training: Training) -> None:
    """Gives an arm that has not begun the baseline's state after its last epoch, as a checkpoint of its own.

    An arm that another process makes is left alone.
    """
    with suppress(Taken), only_one(arm):
        _plant(arm, baseline, training)


def _plant(arm: Run, baseline: Run, training: Training) -> None:
    if records.exists(arm.folder) or checkpoint.exists(arm.raw) or training.diverged:
        return
    place = baseline.folder.relative_to(Path(baseline.config.results_dir) / "runs")
    origin = f"{place.as_posix()} after epoch {len(training.curve)}"
    checkpoint.save(arm.raw, training.state() | {"config": arm.config_hash, "branched_from": origin})
