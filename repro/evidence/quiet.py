"""Tells whether a run's minutes and images/s tell of the run, or of what else its machine did."""

from collections.abc import Iterable

from repro.record import Record

OTHERS = 0.05
"""Other processes may take this share of the processors' time: with two cores a tenth of one."""
OTHERS_CORES = 0.25
"""Beside a run on a GPU, so many cores: another run on the same GPU takes more."""
STEAL = 0.02
"""And the host of a virtual machine this one."""
SPARE = 0.25
"""Where neither is told (without /proc/stat): how far the load average may lie above the run's own threads, as a share
of the cores."""
RULE = f"""\
Minutes and images/s are of training, from runs on a quiet machine alone: other processes took at most
{100 * OTHERS:g} % of the time of all its cores (beside a GPU {OTHERS_CORES:g} of one core, for another run on it takes
more) and the host of a virtual machine {100 * STEAL:g} %; or, where the system tells neither, the load average lay at
most {100 * SPARE:g} % of the cores above the run's own threads. They are blank where no run is known to have had that:
see `python -m repro.bench`.
"""


def is_quiet(run: Record) -> bool:
    """Tells whether the machine did little else meanwhile; not where the record does not say so."""
    cost, machine = run.cost, run.machine
    if cost.others is not None and cost.steal is not None:
        others = OTHERS if machine.device_type == "cpu" else OTHERS_CORES / machine.cores
        return cost.others <= others and cost.steal <= STEAL
    if cost.load_start is None or cost.load_end is None:
        return False
    own = machine.threads * machine.processes / machine.cores
    return max(cost.load_start, cost.load_end) <= own + SPARE


def minutes(runs: Iterable[Record]) -> float | None:
    """Mean minutes of training of the quiet ones; None without one."""
    return mean(run.cost.minutes for run in runs if is_quiet(run))


def images_per_second(runs: Iterable[Record]) -> float | None:
    """Mean images/s of training of the quiet ones; None without one."""
    return mean(run.cost.images_per_second for run in runs if is_quiet(run))


def mean(values: Iterable[float | None]) -> float | None:
    """Takes the mean of the known values; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
