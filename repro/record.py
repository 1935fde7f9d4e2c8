"""The record of a run: what it was, what came out, what it cost, and on what; see `Record` for every field.

A record is a folder, `results/runs/<setup>/<recipe>/<ablation>/seed<k>/`, of files that are written as one:
`record.json`, `curve.csv` (one row an epoch), `correct.npz` (one bit per validation image and crop mode) and, where
conv1's kernels are those of the paper, `kernels.npz`. `leaf` tells how runs on other devices or in other arithmetic lie
beside it. It holds no host name, no user name and no absolute path, so that it can be published as it is.
"""

import csv
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from errno import EDQUOT, ENOSPC
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from repro.environment import Code, Machine, without_paths
from repro.errors import RunFailure, UserError
from repro.files import escaped, sync_folder, write_file

SCHEMA = 1
COMPLETE, STOPPED, DIVERGED = STATUSES = ("complete", "stopped", "diverged")
CENTRE, TEN_CROPS = CROP_MODES = ("centre", "ten_crops")
TOP5_CLASSES = 6
"""Fewest classes with a top-5 error: of five or fewer, five guesses hold the right one."""
ROUNDED = 0.5
"""Images by which an error that was rounded may differ from a count."""
LOOKS = 3
"""At a record that is not there: another process may be between the two renames of `write`."""
SAME_WEIGHTS = 1.0
"""Points (and one image) by which a device that never computes the same bits twice may differ on the same weights."""
CURVE = (
    "epoch", "step", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5",
    "images_per_second", "minutes", "events",
)  # fmt: skip


@dataclass(frozen=True)
class Errors:
    """Share of the validation images that are wrong, %; None where the run is not complete.

    `top5` is None too with fewer than `TOP5_CLASSES` classes.
    """

    top1: float | None
    top5: float | None


@dataclass(frozen=True)
class TrainErrors:
    """Errors in % and mean cross-entropy in nats on the training images, centre crop; None as above."""

    top1: float | None
    top5: float | None
    loss: float | None


@dataclass(frozen=True)
class Metrics:
    """Quality at the last step; `val_loss` is the centre crop's mean cross-entropy, nats.

    `answers` is how many classes are the first guess of any validation image, centre crop; None in older records.
    `minival` is of the training images that `data.minival` held out; None where there are none.
    """

    centre: Errors
    ten_crops: Errors
    train: TrainErrors
    val_loss: float | None
    answers: int | None = None
    minival: TrainErrors | None = None


@dataclass(frozen=True)
class Data:
    """The images: `content_hash` identifies them, `skipped` names those left out, relative to the data set.

    Four fields count what a reader should know of, as `repro.data.store.Counts`. `guessing_loss` is the validation
    loss, nats, of answering with the classes' shares of the training images; None where a class has none of these. All
    five are None in older records.
    """

    source: str
    content_hash: str
    classes: int
    train_images: int
    val_images: int
    skipped: list[str]
    val_images_in_train: int | None = None
    classes_out_of_order: int | None = None
    exif_oriented: int | None = None
    transparent: int | None = None
    guessing_loss: float | None = None


@dataclass(frozen=True)
class Cost:
    """Minutes and images/s of training, peak memory of one process in MiB, parameters, multiply-adds of one image.

    The other four tell how busy the machine was, as `repro.environment.Load`; None too in records of before that.
    """

    minutes: float
    images_per_second: float | None
    peak_memory_mib: float | None
    parameters: int
    macs: int | None
    load_start: float | None = None
    load_end: float | None = None
    steal: float | None = None
    others: float | None = None


@dataclass(frozen=True)
class Record:
    """One run. `difference` maps a changed key to [value in the plain recipe and setup, value here]."""

    setup: str
    recipe: str
    ablation: str
    seed: int
    status: str
    difference: dict[str, Any]
    config: dict[str, Any]
    config_hash: str
    data: Data
    metrics: Metrics
    cost: Cost
    machine: Machine
    code: Code
    command: str
    wandb_id: str | None
    finished: str
    """When it ended: ISO date and time, UTC."""
    numerics: str | None = None
    """Fingerprint of how this code computes on this device, see `repro.train.numerics`; None in older records, and
    where a device does not give the same bits twice."""
    chosen: list[str] | None = None
    """The names after `ablation=`; None where there was no such word, and in older records."""
    threads_before: list[int] | None = None
    """Threads of the earlier parts of a run that went on under another number than `machine.threads`; else None."""
    branched_from: str | None = None
    """The run, and its epoch, whose checkpoint this run went on from: the first rows of its curve are that run's."""
    epochs_to_train_error: float | None = None
    """Epochs until the training error over the last epoch's worth of images was `train.stop_at_train_error`, which
    ended the run; None where that was not set, or not reached."""
    schema: int = SCHEMA
    folder: Path = field(default=Path(), compare=False, repr=False)
    """Where it was read from; not part of the file."""

    def curve(self) -> list[dict[str, Any]]:
        """One row an epoch with the keys of `CURVE`: numbers, None where not measured; `events` is text."""
        path = self.folder / "curve.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                unknown = {} if self.data.classes >= TOP5_CLASSES else {"val_top5": None}  # 0 in older records
                return [{key: _cell(key, row[key]) for key in CURVE} | unknown for row in csv.DictReader(file)]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    def correct(self) -> dict[str, np.ndarray]:
        """Reads for each crop mode whether the top-1 answer is right: (N,) bool in the set's order; {} if not complete.

        UserError where the file is damaged, or is not that of the errors in the record.
        """
        path = self.folder / "correct.npz"
        if self.status != COMPLETE and not path.exists():
            return {}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as packed:
                count = int(packed["n"])
                bits = {mode: np.unpackbits(packed[mode], count=count).astype(bool) for mode in CROP_MODES}
            for mode in bits:
                self._agree(mode, bits[mode])
            return bits
        except Exception as error:  # zipfile, numpy and the file system each have their own
            raise _damaged(path, error) from error

    def _agree(self, mode: str, right: np.ndarray) -> None:
        """Raises ValueError where the bits are not as many as the images, or tell another error than the record."""
        error, images = getattr(self.metrics, mode).top1, self.data.val_images
        if len(right) != images:
            raise ValueError(f"{len(right)} answers to {images} images")
        if error is not None and abs(images - right.sum() - error * images / 100) > ROUNDED:
            wrong = 100 * (1 - right.mean())
            raise ValueError(f"{wrong:.2f} % wrong in {mode}, where record.json says {error:.2f} %")

    def verify(self) -> None:
        """Raises UserError where curve or bits are missing, damaged, or of another run than the record."""
        self.correct()
        rows, epochs = self.curve(), self.config.get("train", {}).get("epochs")
        path = self.folder / "curve.csv"
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            raise _damaged(path, ValueError("its epochs are not 1, 2, 3 ..."))
        if self.status != COMPLETE:
            return
        if self.epochs_to_train_error is not None:
            epochs = math.ceil(self.epochs_to_train_error)
        if len(rows) != epochs:
            raise _damaged(path, ValueError(f"{len(rows)} epochs of a run of {epochs}"))
        last, error = rows[-1]["val_top1"], self.metrics.centre.top1
        if last is None or error is None or abs(last - error) > SAME_WEIGHTS + 100 / self.data.val_images:
            raise _damaged(path, ValueError(f"a last val_top1 of {last}, where record.json says {error}"))

    def kernels(self) -> np.ndarray | None:
        """conv1's weights after the last step: (maps, 3, 11, 11) float16; None where there are none, or not 11x11."""
        path = self.folder / "kernels.npz"
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as packed:
                return np.asarray(packed["conv1"])
        except Exception as error:  # as above
            raise _damaged(path, error) from error

    @property
    def precision(self) -> str:
        """Arithmetic of the run: what `train.precision=auto` came to on its device."""
        return str(self.config.get("train", {}).get("precision"))


def leaf(seed: int, device_type: str, precision: str | None = None) -> str:
    """Name of the last folder of a run: `seed0` on a CPU, `seed0-cuda` on CUDA.

    `precision` is what the setup's `auto` came to, None where the setup or the user names one. Other than bf16, it
    stands at the end (`seed0-fp32`), so that machines with and without bf16 keep their runs side by side.
    """
    parts = [f"seed{seed}"]
    if device_type != "cpu":
        parts.append(device_type)
    if precision not in (None, "bf16"):
        parts.append(str(precision))
    return "-".join(parts)


def run_folder(results_dir: str | Path, setup: str, recipe: str, ablation: str, leaf: str) -> Path:
    """Folder of a run's record; see `leaf`."""
    return Path(results_dir) / "runs" / setup / recipe / ablation / leaf


def raw_folder(results_dir: str | Path, setup: str, recipe: str, ablation: str, leaf: str) -> Path:
    """Folder of a run's large files (checkpoints, traces), which git ignores."""
    return Path(results_dir) / "raw" / setup / recipe / ablation / leaf


def prepare_results(results_dir: str | Path) -> None:
    """Makes the folder and proves that it can be written. Raises UserError, or RunFailure where the disk is full."""
    try:
        Path(results_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results_dir) as file:  # without a name, so that no kill leaves it
            file.write(b"\0" * 2**20)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise RunFailure(f"results_dir={results_dir}: the disk is full: free some space") from error
        raise UserError(
            f"results_dir={results_dir}: cannot be written ({error.strerror}): choose another folder"
        ) from error


def prepare(folder: Path) -> None:
    """Proves that a record can be filed there, before there is one. Raises UserError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}): choose another results_dir") from error
    for path in (folder, *_siblings(folder)):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UserError(f"{path}: is no folder, and in the way of the record: move it away")


def config_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of plain settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def exists(folder: Path) -> bool:
    """Tells whether there is a record, of any status."""
    return any((_settled(folder) / "record.json").exists() for _ in range(LOOKS))


def read(folder: Path) -> Record:
    """The record in `folder`; curve and bits are read when asked for. Raises UserError where it is damaged."""
    missing = FileNotFoundError(2, "No such file or directory")
    for _ in range(LOOKS):
        place = _settled(folder)
        try:
            plain = json.loads((place / "record.json").read_text(encoding="utf-8"))
            return replace(_parse(plain), folder=place)
        except FileNotFoundError as error:
            missing = error
        except (OSError, ValueError) as error:
            raise _damaged(place / "record.json", error) from error
    raise _damaged(folder / "record.json", missing) from missing


def digest(folder: Path) -> str:
    """SHA-256 of the record in `folder`, which tells it from any other that comes in its place; it may be damaged."""
    path = _settled(folder) / "record.json"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _damaged(path, error) from error


def find(results_dir: str | Path) -> list[Record]:
    """All records under a results folder, by setup, recipe, ablation and seed. Raises UserError for a damaged one."""
    runs = Path(results_dir) / "runs"
    # A name with a dot is the unfinished half of a write; it counts only where `_settled` says so.
    folders = {path.with_name(_run_name(path)) for path in runs.glob("*/*/*/*") if path.is_dir()}
    records = []
    for folder in sorted(folder for folder in folders if exists(folder)):
        record = read(folder)
        if folder not in _places(results_dir, record):
            raise UserError(
                f"{folder}: holds the record of setup={record.setup} recipe={record.recipe}"
                f" ablation={record.ablation} seed={record.seed} on {record.machine.device_type} in"
                f" {record.precision}: move it to its place, or remove it"
            )
        records.append(record)
    return sorted(records, key=lambda run: (run.setup, run.recipe, run.ablation, run.seed, run.folder.name))


def _places(results_dir: str | Path, record: Record) -> list[Path]:
    """Lists where a record may lie, for it does not tell whether the setup left the precision open."""
    names = (leaf(record.seed, record.machine.device_type, precision) for precision in (None, record.precision))
    return [run_folder(results_dir, record.setup, record.recipe, record.ablation, name) for name in names]


def write(
    folder: Path,
    record: Record,
    curve: Sequence[Mapping[str, Any]],
    correct: Mapping[str, np.ndarray] | None,
    kernels: np.ndarray | None = None,
) -> None:
    """Files a record, in place of an older one; a kill at any moment leaves the old or the new one whole.

    `curve` has a row an epoch with the keys of `CURVE`; `correct` maps each crop mode to an (N,) bool array, None
    where the run is not complete; `kernels` are conv1's, (maps, 3, 11, 11), filed as float16. Numbers that are not
    finite are filed as null. Raises RunFailure where the disk refuses.
    """
    files = {"record.json": to_json(record), "curve.csv": _csv(curve)}
    if correct is not None:
        files["correct.npz"] = _bits(correct)
    if kernels is not None:
        files["kernels.npz"] = _npz(conv1=kernels.astype(np.float16))
    new, old = _siblings(folder)
    try:
        settle(folder)
        new.mkdir(parents=True)
        for name, content in files.items():
            write_file(new / name, content)
        _carry_over(folder, new)
        sync_folder(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if not old.exists():
            shutil.rmtree(new, ignore_errors=True)
        raise RunFailure(
            f"{folder}: the record could not be written ({error.strerror or error}): make room or choose another"
            " results_dir, then give the same command again"
        ) from error


FILES = ("record.json", "curve.csv", "correct.npz", "kernels.npz")
"""Of a record."""


def _carry_over(old: Path, new: Path) -> None:
    """Copies what a user has laid beside a record that is replaced."""
    for path in old.iterdir() if old.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True)
        elif path.name not in FILES:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _siblings(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _run_name(path: Path) -> str:
    return path.name.removeprefix(".").removesuffix(".new").removesuffix(".old")


def _settled(folder: Path) -> Path:
    """Finds the record of `folder`: a kill between the two renames of `write` leaves it whole under `.new`."""
    new, old = _siblings(folder)
    return new if old.exists() and not folder.exists() else folder


def settle(folder: Path) -> None:
    """Finishes or clears away what a killed `write` left. Raises OSError."""
    new, old = _siblings(folder)
    if _settled(folder) == new:
        new.rename(folder)
    for leftover in (new, old):
        if leftover.exists():
            shutil.rmtree(leftover)


def to_json(record: Record) -> bytes:
    """The content of `record.json`. Raises ValueError where it could not be read back."""
    plain = asdict(record)
    del plain["folder"]
    plain = publishable(plain)
    _parse(plain)
    return (json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _csv(curve: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE, lineterminator="\n")
    writer.writeheader()
    writer.writerows(publishable(dict(row)) for row in curve)
    return text.getvalue().encode()


def _bits(correct: Mapping[str, np.ndarray]) -> bytes:
    modes = {mode: np.asarray(correct[mode], dtype=bool) for mode in CROP_MODES}
    counts = {len(bits) for bits in modes.values()}
    if len(counts) != 1:
        raise ValueError(f"crop modes of one run differ in their number of images: {sorted(counts)}")
    return _npz(n=np.int64(counts.pop()), **{mode: np.packbits(bits) for mode, bits in modes.items()})


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def publishable(value: Any) -> Any:
    """The same plain value with null for what is not finite, names escaped, and without absolute paths."""
    if isinstance(value, dict):
        return {escaped(str(key)): publishable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [publishable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return escaped(without_paths(value)) if isinstance(value, str) else value


def _parse(plain: Any) -> Record:
    """Checks a plain value against `Record`. Raises ValueError."""
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}, this version reads {SCHEMA}")
    record: Record = _build(Record, plain, "record")
    if record.status not in STATUSES:
        raise ValueError(f"status {record.status!r} is none of {', '.join(STATUSES)}")
    measured = record.data.classes >= TOP5_CLASSES
    for key, pair in record.difference.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"difference.{key} is {pair!r}, not [value in the recipe, value here]")
    if not isinstance(record.config.get("train", {}), dict):
        raise ValueError(f"config.train is {record.config['train']!r}")
    for name in ("classes", "train_images", "val_images"):
        if getattr(record.data, name) < 1:
            raise ValueError(f"data.{name} is {getattr(record.data, name)}")
    for mode in CROP_MODES if record.status == COMPLETE else ():
        errors = getattr(record.metrics, mode)
        needed = (errors.top1, errors.top5) if measured else (errors.top1,)
        if not all(error is not None and 0 <= error <= 100 for error in needed):
            raise ValueError(f"metrics.{mode} of a complete run must lie between 0 and 100")
    return record if measured else replace(record, metrics=_without_top5(record.metrics))


def _without_top5(metrics: Metrics) -> Metrics:
    """Older records of few classes have a top-5 error of 0, as if it had been measured."""
    names = (*CROP_MODES, "train", *(["minival"] if metrics.minival else []))
    parts = {name: replace(getattr(metrics, name), top5=None) for name in names}
    return replace(metrics, **parts)


def _build(kind: Any, plain: Any, name: str) -> Any:
    """`plain` as the annotated type `kind`: a dataclass, a union, or a JSON type."""
    if not is_dataclass(kind):
        options = get_args(kind) if get_origin(kind) is UnionType else (kind,)
        nested = next(filter(is_dataclass, options), None)
        if nested is not None and plain is not None:
            return _build(nested, plain, name)
        if not any(_fits(plain, get_origin(option) or option) for option in options):
            raise ValueError(f"{name} is {plain!r}")
        return plain
    hints = get_type_hints(kind)
    names = {item.name: item.default is MISSING for item in fields(kind) if item.name != "folder"}
    keys = set(plain) if isinstance(plain, dict) else set()
    wrong = (keys - set(names)) | {key for key, needed in names.items() if needed and key not in keys}
    if wrong:
        raise ValueError(f"{name} has wrong or missing keys: {', '.join(sorted(wrong))}")
    return kind(**{key: _build(hints[key], plain[key], key) for key in keys})  # type: ignore[operator]


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _cell(key: str, text: str) -> Any:
    if key == "events":
        return text
    if text == "":
        return None
    return int(text) if key in ("epoch", "step") else float(text)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0] if str(error) else repr(error)
    return UserError(f"{path}: not a readable record ({reason}): remove its folder and run it again")
