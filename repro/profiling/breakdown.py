"""The tables of a profile: a step by layer and phase, and by kernel; what one configuration costs over another."""

from statistics import median

import pandas as pd

from repro.profiling.attribution import BETWEEN, LOSS, Span
from repro.profiling.ranges import BACKWARD, FORWARD, INPUT, UPDATE
from repro.profiling.recorded_steps import Profiled
from repro.profiling.roofline import Ceilings
from repro.profiling.work import Work

OTHER = "other"
"""What no layer and no kernel accounts for: the Python of the loop; on CUDA the time in which the device waits."""
MEASURES = (
    "milliseconds", "share_percent", "calls", "gflop", "megabytes", "gflop_per_second", "gigabytes_per_second",
    "of_ceiling_percent", "bound",
)  # fmt: skip
"""Of one step. The time is the median over the steps, so that one that was disturbed does not count. See `roofline`."""
Row = dict[str, float | str]


def by_layer(profiled: Profiled, ceilings: Ceilings) -> pd.DataFrame:
    """Columns `layer`, `phase` and `MEASURES`, in the order of the network; the work is the least a layer has to do."""
    groups = _groups(profiled, "layer", "phase")
    rows = []
    for phase in (INPUT, FORWARD, BACKWARD, UPDATE):
        for layer in (INPUT, *profiled.layers, BETWEEN, LOSS, UPDATE):
            if (layer, phase) in groups:
                work = profiled.work.get((layer, phase), Work())
                measures = _measures(groups[layer, phase], work, profiled, ceilings)
                rows.append(Row(layer=layer, phase=phase, **measures))
    return _with_other(rows, "layer", profiled, ceilings)


def by_kernel(profiled: Profiled, ceilings: Ceilings) -> pd.DataFrame:
    """Columns `kernel`, `phase` and `MEASURES`, the longest first; the work is what the kernels did."""
    rows = []
    for (kernel, phase), steps in _groups(profiled, "kernel", "phase").items():
        work = sum((span.work for step in steps for span in step), Work()) * (1 / len(steps))
        rows.append(Row(kernel=kernel, phase=phase, **_measures(steps, work, profiled, ceilings)))
    table = _with_other(rows, "kernel", profiled, ceilings)
    return table.sort_values("milliseconds", ascending=False, ignore_index=True)


def difference(table: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Computes what `table` takes longer than `reference`, row by row, the largest change first.

    Columns: the two that name a row, `reference_milliseconds`, `milliseconds`, `difference_milliseconds` and
    `difference_percent`, of the reference's whole step. A row that only one of them has counts as 0 in the other.
    """
    keys = list(table.columns[:2])
    both = reference[[*keys, "milliseconds"]].merge(
        table[[*keys, "milliseconds"]], how="outer", on=keys, suffixes=("_reference", "")
    )
    both = both.rename(columns={"milliseconds_reference": "reference_milliseconds"}).fillna(
        {"reference_milliseconds": 0.0, "milliseconds": 0.0}
    )
    both["difference_milliseconds"] = both["milliseconds"] - both["reference_milliseconds"]
    both["difference_percent"] = 100 * both["difference_milliseconds"] / both["reference_milliseconds"].sum()
    return both.sort_values("difference_milliseconds", key=abs, ascending=False, ignore_index=True)


def _groups(profiled: Profiled, *keys: str) -> dict[tuple[str, ...], list[list[Span]]]:
    """The spans in groups, by `phase`, `layer` or `kernel`; in each, those of every step."""
    groups: dict[tuple[str, ...], list[list[Span]]] = {}
    for number, step in enumerate(profiled.spans):
        for span in step:
            key = tuple(getattr(span, name) for name in keys)
            groups.setdefault(key, [[] for _ in profiled.spans])[number].append(span)
    return groups


def _measures(steps: list[list[Span]], work: Work, profiled: Profiled, ceilings: Ceilings) -> Row:
    """`work`: of one step."""
    seconds = median(sum(span.seconds for span in step) for step in steps)
    calls = median(sum(span.calls for span in step) for step in steps)
    rate = 1 / seconds if seconds else 0.0
    values = (
        1000 * seconds,
        100 * seconds / median(profiled.seconds),
        calls,
        work.flops / 1e9,
        work.bytes / 1e6,
        work.flops * rate / 1e9,
        work.bytes * rate / 1e9,
        100 * ceilings.least_seconds(work) * rate,
        ceilings.bound(work),
    )
    return dict(zip(MEASURES, values, strict=True))


def _with_other(rows: list[Row], name: str, profiled: Profiled, ceilings: Ceilings) -> pd.DataFrame:
    """The table with what its rows leave of the step; nothing, where kernels that ran at once count twice."""
    left = median(profiled.seconds) - sum(float(row["milliseconds"]) for row in rows) / 1000
    other = _measures([[Span(OTHER, OTHER, OTHER, max(0.0, left), 0)]], Work(), profiled, ceilings)
    return pd.DataFrame([*rows, Row({name: OTHER, "phase": OTHER}, **other)])
