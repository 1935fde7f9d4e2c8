"""Records of runs that never happened."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro import record
from repro.config import Config
from repro.experiments.compose import compose
from repro.record import Code, Cost, Data, Errors, Machine, Metrics, Record, TrainErrors
from repro.report import experiments_page
from repro.request import Run, request

IMAGES = 400
CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "no_lrn": {"model.norm.kind": ["lrn", "none"]},
    "no_dropout": {"model.dropout.rate": [0.5, 0.0]},
    "sigmoid": {"model.activation": ["relu", "sigmoid"]},
}


def make_record(ablation: str = "baseline", seed: int = 0, error: float | None = 25.0, **changed: Any) -> Record:
    """A record with `error` % on ten crops and 2 more on the centre; `changed` replaces fields.

    `epochs`, `device`, `device_type`, `content_hash`, `commit`, `others` and `keys` (settings by dotted key, no part
    of the difference) reach into the nested ones.
    """
    difference = changed.pop("difference", CHANGES.get(ablation, {}))
    keys = {
        "seed": seed,
        "train.epochs": changed.pop("epochs", 20),
        **changed.pop("keys", {}),
        **{key: pair[1] for key, pair in difference.items()},
    }
    config = _plain_config(keys)
    centre = None if error is None else error + 2
    fields: dict[str, Any] = {
        "setup": "imagenette_small",
        "recipe": "paper",
        "ablation": ablation,
        "seed": seed,
        "status": record.COMPLETE if error is not None else record.DIVERGED,
        "difference": difference,
        "config": config,
        "config_hash": record.config_hash(keys),
        "data": Data("imagenette", changed.pop("content_hash", "c0ffee" * 8), 10, 9469, IMAGES, []),
        "metrics": Metrics(
            centre=Errors(centre, None if error is None else error / 4),
            ten_crops=Errors(error, None if error is None else error / 5),
            train=TrainErrors(10.0, 1.0, 0.3),
            val_loss=1.1,
        ),
        "cost": Cost(6.0 + seed, 1500.0, 900.0, 15_000_000, 120_000_000, 0.5, 0.5, 0.0, changed.pop("others", 0.0)),
        "machine": Machine(
            changed.pop("device", "Xeon"), changed.pop("device_type", "cpu"), 2, 2, None, "2.15.0", None, "3.11.7"
        ),
        "code": Code(changed.pop("commit", "0123abc"), False, "0.1.0"),
        "command": f"python -m repro.run ablation={ablation} seed={seed}",
        "wandb_id": None,
        "finished": "2026-11-21T12:00:00+00:00",
    }
    return Record(**(fields | changed))


def stuck(ablation: str, count: int, **changed: Any) -> list[Record]:
    """Runs of so many seeds that never left chance: one answer for all images of ten classes."""
    guessing = math.log(10)
    metrics = Metrics(Errors(90.0, 50.0), Errors(90.0, 50.0), TrainErrors(90.0, 50.0, guessing), guessing * 1.005)
    return [make_record(ablation, seed, 90.0, metrics=metrics, **changed) for seed in range(count)]


def _plain_config(keys: Mapping[str, Any]) -> dict[str, Any]:
    config = asdict(Config(), dict_factory=lambda pairs: {key: getattr(value, "name", value) for key, value in pairs})
    for key, value in keys.items():
        *tables, last = key.split(".")
        reduce(dict.__getitem__, tables, config)[last] = value
    return config


def answers(run: Record) -> dict[str, np.ndarray] | None:
    """As many right answers as the errors of a record say, at places drawn from its seed and name."""
    if run.status == record.DIVERGED:
        return None
    generator = np.random.default_rng([run.seed, *run.ablation.encode()])
    right: Mapping[str, float | None] = {"centre": run.metrics.centre.top1, "ten_crops": run.metrics.ten_crops.top1}
    places = generator.permutation(run.data.val_images)
    return {mode: places >= round(IMAGES * (error or 0.0) / 100) for mode, error in right.items()}


def make_curve(epochs: int = 3) -> list[dict[str, Any]]:
    """One row an epoch."""
    measured = dict.fromkeys(record.CURVE[2:-1], 1.5)
    return [{"epoch": epoch, "step": 74 * epoch, **measured, "events": ""} for epoch in range(1, epochs + 1)]


def file_record(results_dir: Path, run: Record) -> Path:
    """Writes a record to its place with a curve and bits; returns its folder."""
    folder = place(results_dir, run)
    record.write(folder, run, make_curve(), answers(run))
    return folder


def adopt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `folder` the project's own checkout for a test; returns its results folder."""
    monkeypatch.setattr(experiments_page, "RESULTS", folder / "results")
    monkeypatch.setattr(experiments_page, "README", folder / "experiments.md")
    return folder / "results"


def place(results_dir: Path, run: Record) -> Path:
    """Where a record lies whose setup names its precision."""
    leaf = record.leaf(run.seed, run.machine.device_type)
    return record.run_folder(results_dir, run.setup, run.recipe, run.ablation, leaf)


def requested(results_dir: Path, *words: str) -> Run:
    """The run that these words of a command line ask for."""
    words = ("train.device=cpu", *words, f"results_dir={results_dir}")
    return request(compose(words), words, ["run", *words], print)


def file_for(run: Run, error: float | None, curve: Sequence[Mapping[str, Any]] = (), **changed: Any) -> Record:
    """Writes a record of so large an error to the place of a run, and returns it."""
    difference = {key: list(pair) for key, pair in run.difference.items()}
    same = {"setup": run.config.setup, "recipe": run.config.recipe, "difference": difference}
    same |= {"config": run.plain, "config_hash": run.config_hash}
    made = make_record(run.label, run.config.seed, error, **same, **changed)
    record.write(run.folder, made, curve or make_curve(), answers(made))
    return record.read(run.folder)
