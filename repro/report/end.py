"""What is shown at the end of a run: its errors, and the difference from its baseline or how to make one."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import naming
from repro import record as records
from repro.config import Config
from repro.experiments import BASELINE
from repro.record import CENTRE, COMPLETE, TEN_CROPS, Record
from repro.report.effects import (
    TOPS,
    Arm,
    Effect,
    Measure,
    at_chance,
    base_hash,
    own_keys,
    pair_notes,
    run_command,
    same_code,
    settings,
)
from repro.report.tables import CROP_WORDS, number

if TYPE_CHECKING:
    from rich.console import RenderableType


def against_baseline(run: Record, results_dir: str | Path, words: Sequence[str] = ()) -> "RenderableType":
    """Final errors of a run, and the difference from the baseline's record of the same seed or how to make one.

    `words` are those of the run's command line. For a console with `soft_wrap`: the command stays on one line, to be
    copied. Raises UserError where the baseline's record is damaged.
    """
    from rich.console import Group
    from rich.table import Table

    baseline, note = _baseline_of(run, results_dir, words) if own_keys(run) else (None, "")
    table = Table("error in %", "top-1", "top-5")
    if baseline:
        table.add_column("baseline top-1")
        table.add_column("difference, pp")
    for mode in (TEN_CROPS, CENTRE):
        errors = [_error(run, (mode, top)) for top in TOPS]
        cells = [CROP_WORDS[mode], *(number(error, 2) or run.status for error in errors)]
        if baseline:
            other = _error(baseline, (mode, "top1"))
            difference = None if errors[0] is None or other is None else errors[0] - other
            cells += [number(other, 2), number(difference, 2, "+")]
        table.add_row(*cells)
    title = f"{run.setup}, recipe {run.recipe}, {run.ablation}, seed {run.seed}"
    if run.status == COMPLETE and at_chance(run):
        note = f"did not learn: the loss is still that of guessing, ln({run.data.classes})"
    return Group(title, table, note) if note else Group(title, table)


def _baseline_of(run: Record, results_dir: str | Path, words: Sequence[str]) -> tuple[Record | None, str]:
    """The record to compare with, and what to know about it; or None and what to do."""
    keys = own_keys(run)
    given = {key: after for key, (_, after) in run.difference.items() if key not in keys}
    label = naming.label(given, run.recipe, run.setup)
    folder = records.run_folder(results_dir, run.setup, run.recipe, label, run.folder.name)
    command = _command(run, given, results_dir, words)
    if not records.exists(folder):
        return None, f"for the difference, run the baseline: {command}"
    other = records.read(folder)
    if reason := _not_comparable(run, other):
        return None, f"the baseline's record {reason}; to compare, replace it: {command} force=true"
    if at_chance(other):
        return None, "the baseline did not learn: there is nothing to compare with"
    if run.status != COMPLETE or at_chance(run):
        return None, ""
    return other, "; ".join(pair_notes(Effect(Arm(BASELINE, [other]), Arm(run.ablation, [run]))))


def _not_comparable(run: Record, other: Record) -> str:
    """Why a record is not the baseline of a run; empty where it is."""
    reasons = (
        (other.status != COMPLETE, f"is {other.status}"),
        (other.machine.device != run.machine.device, f"was made on {other.machine.device}"),
        (other.data.content_hash != run.data.content_hash, "was made on other images"),
        (records.config_hash(settings(other)) != base_hash(run), "was made with other settings"),
        (other.numerics != run.numerics or not same_code(run, other), "was made by code that may compute other bits"),
    )
    return next((reason for wrong, reason in reasons if wrong), "")


def _command(run: Record, given: Mapping[str, Any], results_dir: str | Path, words: Sequence[str]) -> str:
    """What makes the baseline of a run, with all else that the user set: places, device, W&B."""
    by_key = {word.lstrip("+").partition("=")[0]: word for word in words}
    aside = settings(run).keys() | {"setup", "recipe", "ablation", "seed", "force"}
    extra = [word for key, word in by_key.items() if key not in aside]
    if "results_dir" not in by_key and Path(results_dir) != Path(Config.results_dir):
        extra.append(f"results_dir={results_dir}")
    if "init_from" in given:  # known by its fingerprint, but given by its path
        given = {key: value for key, value in given.items() if key != "init_from"}
        extra.append(by_key.get("init_from", "init_from=FILE"))
    command = run_command(run.setup, run.recipe, BASELINE, given, run.seed)
    return " ".join([command, *map(shlex.quote, extra)])


def _error(run: Record, measure: Measure) -> float | None:
    mode, top = measure
    error: float | None = getattr(getattr(run.metrics, mode), top)
    return error
