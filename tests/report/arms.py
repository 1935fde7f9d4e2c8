"""Synthetic arms on disk, with the curves and training errors that a test wants."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro import record
from repro.evidence.comparison import Comparison, comparisons
from repro.record import Record
from tests.synthetic import answers, make_curve, make_record, place

Curve = list[dict[str, Any]]


def curve(key: str, values: Sequence[float]) -> Curve:
    """A row an epoch with these values of one column."""
    return [row | {key: value} for row, value in zip(make_curve(len(values)), values, strict=True)]


def with_train(runs: Sequence[Record], errors: Sequence[float], loss: float = 0.3) -> list[Record]:
    """The same runs with other errors on the training images."""
    train = [record.TrainErrors(error, 1.0, loss) for error in errors]
    return [replace(run, metrics=replace(run.metrics, train=own)) for run, own in zip(runs, train, strict=True)]


def of_net(net: str, *runs: Record) -> list[Record]:
    """The same runs of another network."""
    for run in runs:
        run.config["model"]["net"] = net
    return list(runs)


def arm(
    ablation: str,
    errors: Sequence[float | None],
    **changed: Any,
) -> list[Record]:
    """Runs with these ten-crop errors, seed by seed."""
    return [make_record(ablation, seed, error, **changed) for seed, error in enumerate(errors)]


def filed(folder: Path, *runs: Record, curves: Mapping[str, Sequence[Curve]] | None = None) -> list[Record]:
    """Writes the runs and reads them back; `curves` gives those of an ablation by seed."""
    for run in runs:
        rows = (curves or {}).get(run.ablation, [make_curve()] * (run.seed + 1))[run.seed]
        record.write(place(folder, run), run, rows, answers(run))
    return record.find(folder)


def compared(folder: Path, *runs: Record, curves: Mapping[str, Sequence[Curve]] | None = None) -> list[Comparison]:
    """The comparisons of the runs, from their files."""
    return comparisons(filed(folder, *runs, curves=curves))
