"""The end of a run or a sweep as it is shown: errors, differences from the baseline, verdicts, files."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repro import record as records
from repro.config import Config
from repro.errors import UserError
from repro.evidence.comparison import (
    CROP_WORDS,
    MAIN,
    TOPS,
    Arm,
    Effect,
    Measure,
    alike,
    arm_and_keys,
    at_chance,
    base_hash,
    own_keys,
    pair_notes,
    run_command,
    same_code,
    settings,
    stuck_words,
)
from repro.experiments import naming
from repro.experiments.folder import BASELINE
from repro.record import CENTRE, COMPLETE, TEN_CROPS, Record
from repro.report.markdown import number
from repro.train import checkpoint

if TYPE_CHECKING:
    from rich.table import Table

    from repro.request import Run


OTHER_CODE = "was made by other code"


class End(NamedTuple):
    """The parts that are shown of a run: one line, a table that fits into 60 columns, and lines to be left whole."""

    title: str
    table: "Table"
    lines: list[str]


def of_run(run: Record, results_dir: str | Path, words: Sequence[str] = ()) -> End:
    """Shows a run's final errors, its files, and the difference from the baseline of its seed or how to make that one.

    `words` are those of the run's command line.
    """
    from rich.table import Table

    baseline, note = _baseline_of(run, results_dir, words) if own_keys(run) else (None, "")
    table = Table("error in %", "top-1", "top-5")
    if baseline:
        table.add_column("baseline")
        table.add_column("difference")
    for mode in (TEN_CROPS, CENTRE):
        cells = [CROP_WORDS[mode], *(_shown(run, (mode, top)) for top in TOPS)]
        if baseline:
            difference = number(_difference(run, baseline, (mode, "top1")), 2, "+")
            cells += [_shown(baseline, (mode, "top1")), f"{difference} pp"]
        table.add_row(*cells)
    if run.status == COMPLETE and at_chance(run):
        loss = f"its loss is no better than guessing among {run.data.classes} classes"
        note = f"did not learn: {stuck_words(run) if run.metrics.answers == 1 else loss}"
    verdict = f"verdict: {_verdict(run, results_dir)}" if baseline else ""
    title = f"{run.setup}, recipe {run.recipe}, {run.ablation}, seed {run.seed}"
    return End(title, table, [line for line in (verdict, note, *_files(run, results_dir)) if line])


def of_sweep(runs: Sequence["Run"]) -> "Table":
    """Shows what came out of the runs of a sweep, and the verdict on each ablation over its seeds."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("ablation", "seed", "top-1 error", "difference", "verdict", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[-1].min_width = len("distinguishable")  # its longest word
    arms = list(dict.fromkeys(run.folder.parent for run in runs))
    names, last = _names(runs), None
    for run in sorted(runs, key=lambda run: arms.index(run.folder.parent)):
        arm, results_dir = run.folder.parent, run.config.results_dir
        record, reason = _read(run)
        cells = [str(run.config.seed), reason, "", ""]
        if record is not None:
            baseline = _baseline_of(record, results_dir, ())[0] if own_keys(record) else None
            difference = _difference(record, baseline, MAIN) if baseline else None
            verdict = _verdict(record, results_dir) if own_keys(record) and arm != last else ""
            error = _shown(record, MAIN) + (" %" if record.status == COMPLETE else "")
            cells = [str(record.seed), error, f"{difference:+.2f} pp" if difference is not None else "", verdict]
            last = arm
        table.add_row(*map(Text, (names[arm], *cells)))
    return table


def _read(run: "Run") -> tuple[Record | None, str]:
    """The record of a run; or None and why. What is wrong with a damaged one is told where the run is made."""
    if not records.exists(run.folder):
        return None, "not done"
    try:
        record = records.read(run.folder)
    except UserError:
        return None, "damaged"
    if not run.is_of(record):
        return None, "older settings"
    return replace(record, chosen=list(run.chosen) or None), ""


def _names(runs: Sequence["Run"]) -> dict[Path, str]:
    """Names of arms, by folder, without what all of them share: keys set by hand, setup and recipe."""
    arms = {
        run.folder.parent: naming.arm(run.difference, naming.settings(run.config), run.chosen or None) for run in runs
    }
    given = {
        run.folder.parent: {
            key: after for key, (_, after) in run.difference.items() if key not in arms[run.folder.parent][1]
        }
        for run in runs
    }
    varied = {
        key for keys in given.values() for key in keys if len({str(other.get(key)) for other in given.values()}) > 1
    }
    several = len({place.parent for place in arms}) > 1
    names = {}
    for place, (arm, _) in arms.items():
        by_hand = {key: value for key, value in given[place].items() if key in varied}
        name = naming.joined([] if arm == BASELINE else [arm], by_hand)
        names[place] = "/".join((*place.parts[-3:-1], name)) if several else name
    return names


def _shown(run: Record, measure: Measure) -> str:
    """An error, or why there is none."""
    error = _error(run, measure)
    if error is None:
        return "not measured" if run.status == COMPLETE else run.status
    return number(error, 2)


def _difference(run: Record, baseline: Record, measure: Measure) -> float | None:
    error, other = _error(run, measure), _error(baseline, measure)
    return None if error is None or other is None else error - other


def _verdict(run: Record, results_dir: str | Path) -> str:
    """Gives the verdict on a run's ablation, over all its seeds that are filed and have a baseline."""
    try:
        return _over_seeds(run, results_dir)
    except UserError as error:  # the record of another seed is damaged: this run is not
        return f"none: {error}"


def _over_seeds(run: Record, results_dir: str | Path) -> str:
    pairs = [(_baseline_of(other, results_dir, ())[0], other) for other in _seeds(run)]
    whole = [(baseline, other) for baseline, other in pairs if baseline is not None]
    if not whole:
        reason = _baseline_of(run, results_dir, ())[1]  # the rest of it says what to do
        return re.split("[:;]", reason)[0] or ("did not learn" if at_chance(run) else run.status)
    effect = Effect(Arm(BASELINE, [baseline for baseline, _ in whole]), Arm(run.ablation, [arm for _, arm in pairs]))
    mcnemar = effect.mcnemar[TEN_CROPS]
    if effect.differences[MAIN].n != 1 or mcnemar is None:
        return effect.verdict
    return f"{effect.verdict}; McNemar's test on these two nets: p = {mcnemar.p:.2g}"


def _seeds(run: Record) -> list[Record]:
    """The runs of the same experiment that are filed beside one, itself included."""
    beside = [
        replace(records.read(folder), chosen=run.chosen)  # as it is asked for now
        for folder in run.folder.parent.glob("seed*")
        if records.exists(folder)
    ]
    own = alike(run), records.config_hash(settings(run)), own_keys(run)
    return [other for other in beside if (alike(other), records.config_hash(settings(other)), own_keys(other)) == own]


def _files(run: Record, results_dir: str | Path) -> list[str]:
    """Tells where its record and its weights lie."""
    place = run.setup, run.recipe, run.ablation, run.folder.name
    weights = records.raw_folder(results_dir, *place) / checkpoint.WEIGHTS
    return [f"record: {run.folder}", *([f"weights: {weights}"] if weights.is_file() else [])]


def _baseline_of(run: Record, results_dir: str | Path, words: Sequence[str]) -> tuple[Record | None, str]:
    """The record to compare with, and what to know about it; or None and what to do."""
    keys = own_keys(run)
    given = {key: after for key, (_, after) in run.difference.items() if key not in keys}
    label = naming.label(given, run.recipe, run.setup)
    folder = records.run_folder(results_dir, run.setup, run.recipe, label, run.folder.name)
    command = _command(run, BASELINE, given, results_dir, words)
    if not records.exists(folder):
        return None, f"for the difference, run the baseline: {command}"
    try:
        other = records.read(folder)
    except UserError as error:
        return None, f"the baseline's record is damaged: {error}"
    reason = _not_comparable(run, other)
    if reason == OTHER_CODE and run.finished < other.finished:
        again = _command(run, *arm_and_keys(run), results_dir, words)
        newer = f"this run {OTHER_CODE} than the baseline, which is newer"
        return None, f"{newer}; to compare, make it again: {again} force=true"
    if reason:
        return None, f"the baseline's record {reason}; to compare, replace it: {command} force=true"
    if at_chance(other):
        return None, "the baseline did not learn: there is nothing to compare with"
    if run.status != COMPLETE or at_chance(run):
        return None, ""
    return other, "; ".join(pair_notes(Effect(Arm(BASELINE, [other]), Arm(run.ablation, [run]))))


def _not_comparable(run: Record, other: Record) -> str:
    """Says why a record is not the baseline of a run; empty where it is."""
    reasons = (
        (other.status != COMPLETE, f"is {other.status}"),
        (other.machine.device != run.machine.device, f"was made on {other.machine.device}"),
        (other.data.content_hash != run.data.content_hash, "was made on other images"),
        (records.config_hash(settings(other)) != base_hash(run), "was made with other settings"),
        (other.numerics != run.numerics or not same_code(run, other), OTHER_CODE),
    )
    return next((reason for wrong, reason in reasons if wrong), "")


def _command(run: Record, name: str, given: Mapping[str, Any], results_dir: str | Path, words: Sequence[str]) -> str:
    """Writes the command of a run or of its baseline, with all else that the user set: places, device, W&B."""
    by_key = {word.lstrip("+").partition("=")[0]: word for word in words}
    aside = settings(run).keys() | {"setup", "recipe", "ablation", "seed", "force"}
    extra = [word for key, word in by_key.items() if key not in aside]
    if "results_dir" not in by_key and Path(results_dir) != Path(Config.results_dir):
        extra.append(f"results_dir={results_dir}")
    if "init_from" in given:  # known by its fingerprint, but given by its path
        given = {key: value for key, value in given.items() if key != "init_from"}
        extra.append(by_key.get("init_from", "init_from=FILE"))
    command = run_command(run.setup, run.recipe, name, given, run.seed)
    return " ".join([command, *map(shlex.quote, extra)])


def _error(run: Record, measure: Measure) -> float | None:
    mode, top = measure
    error: float | None = getattr(getattr(run.metrics, mode), top)
    return error
