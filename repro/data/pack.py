"""Preparation: all images into two arrays on disk, block by block, so that a killed one goes on where it was."""

import hashlib
import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from repro.data.sources import Files, Listing, bad_files
from repro.data.square import read_square
from repro.data.statistics import measure
from repro.errors import RunFailure, UserError
from repro.files import replace_file

FORMAT = 1  # of the folder's files; another one is prepared again
BLOCK_BYTES = 2**25  # pixels decoded, written and recorded at a time
ARRAYS = ("train_images", "train_labels", "val_images", "val_labels", "mean")
META, PROGRESS, BAD_FILES = "meta.json", "progress.json", "bad_files.txt"


def prepare(folder: Path, listing: Listing, source: str, size: int, skip_bad: bool) -> None:
    """Packs a data set into `folder`; what an earlier, interrupted call has written is kept.

    Raises UserError naming every bad file (unless `skip_bad`), RunFailure where the disk is full or not writable.
    """
    with disk_errors(folder):
        (folder / META).unlink(missing_ok=True)
        parts = _resume(folder, listing, size)
        _check_space(folder, parts)
        _pack(folder, listing.fingerprint, parts, f"{source} at {size} pixels")
        bad = [f"{part.files.names[index]}: {reason}" for part in parts for index, reason in part.bad.items()]
        if bad and not skip_bad:
            path = folder / BAD_FILES
            replace_file(path, os.fsencode("\n".join([*bad, ""])))
            raise bad_files(f"{len(bad)} images cannot be read: replace them, or set data.skip_bad=true ({path})", bad)
        _finish(folder, listing, parts, {"source": source, "image_size": size})


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into RunFailure."""
    try:
        yield
    except OSError as error:
        remedy = "free some space, or set data.cache to another folder; what is done is kept"
        raise RunFailure(f"{folder}: cannot write the packed images ({error.strerror or error}): {remedy}") from None


@dataclass
class _Part:
    """One split on its way into its file: images tried so far, and those of them that cannot be read, with reasons."""

    name: str
    path: Path
    files: Files
    size: int
    seen: int = 0
    bad: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Images in the file."""
        return self.seen - len(self.bad)

    @property
    def missing_bytes(self) -> int:
        return (len(self.files.names) - self.seen) * self.size**2 * 3

    def holds_what_is_recorded(self) -> bool:
        """Whether the rows are there, and the bad files are still bad."""
        written = self.path.stat().st_size if self.path.exists() else 0
        bad = all(isinstance(read_square(self.files, index, self.size), str) for index in self.bad)
        return bad and (self.seen == 0 or written >= self._end())

    def append(self, pool: ThreadPoolExecutor) -> Iterator[int]:
        """Writes the images not yet seen behind the others; yields the length of each block once it is on disk."""
        block = max(1, BLOCK_BYTES // (self.size**2 * 3))
        with self.path.open("r+b" if self.path.exists() else "x+b") as file:
            file.seek(self._end())
            while self.seen < len(self.files.names):
                indices = range(self.seen, min(self.seen + block, len(self.files.names)))
                for index, image in zip(indices, pool.map(self._read, indices), strict=True):
                    if isinstance(image, str):
                        self.bad[index] = image
                    else:
                        file.write(image.tobytes())
                _sync(file)
                self.seen = indices.stop
                yield len(indices)
            file.truncate(self._end())
            file.seek(0)
            file.write(self._header())
            _sync(file)

    def labels(self, classes: tuple[str, ...]) -> np.ndarray:
        """Labels (N,) int64 of the rows. UserError where none of a class's images could be read."""
        labels = [label for index, label in enumerate(self.files.labels) if index not in self.bad]
        empty = set(range(len(classes))).difference(labels)
        if empty:
            raise UserError(f"{self.name}: no image of class {classes[min(empty)]} can be read; replace them")
        return np.array(labels, np.int64)

    def _read(self, index: int) -> np.ndarray | str:
        return read_square(self.files, index, self.size)

    def _header(self) -> bytes:
        """Of the .npy file; numpy leaves room in it for a longer first axis, so its length is always the same."""
        stream = io.BytesIO()
        shape = (self.rows, self.size, self.size, 3)
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return stream.getvalue()

    def _end(self) -> int:
        return len(self._header()) + self.rows * self.size**2 * 3


def _resume(folder: Path, listing: Listing, size: int) -> list[_Part]:
    """An interrupted preparation of the same files, if it can be trusted; otherwise a clean start."""
    parts = [
        _Part(name, folder / f"{name}_images.npy", files, size)
        for name, files in (("train", listing.train), ("val", listing.val))
    ]
    try:
        saved = json.loads((folder / PROGRESS).read_bytes())
        if (saved["format"], saved["fingerprint"]) == (FORMAT, listing.fingerprint):
            for part in parts:
                part.seen = saved[part.name]["seen"]
                part.bad = {int(index): reason for index, reason in saved[part.name]["bad"].items()}
            if all(part.holds_what_is_recorded() for part in parts):
                return parts
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        pass  # none, or not ours: start afresh
    for name in (PROGRESS, BAD_FILES, *(f"{array}.npy" for array in ARRAYS)):
        (folder / name).unlink(missing_ok=True)  # never emptied in place: another process may have it mapped
    return [_Part(part.name, part.path, part.files, size) for part in parts]


def _check_space(folder: Path, parts: list[_Part]) -> None:
    needed, free = sum(part.missing_bytes for part in parts), shutil.disk_usage(folder).free
    if needed > free:
        raise RunFailure(
            f"{folder}: the packed images need {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free:"
            " free some space, or set data.cache to a folder on another disk"
        )


def _pack(folder: Path, fingerprint: str, parts: list[_Part], what: str) -> None:
    console = Console(stderr=True)
    total, done = sum(len(part.files.names) for part in parts), sum(part.seen for part in parts)
    going_on = f", going on after {done}" if done else ""
    print(f"Preparing {total} images of {what} in {folder}, once{going_on}", file=sys.stderr)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,  # Pillow decodes and resizes without the interpreter's lock
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        warnings.filterwarnings("ignore", "Corrupt EXIF data")  # ILSVRC has some; the pixels are whole
        task = bar.add_task("", total=total, completed=done)
        for part in parts:
            for images in part.append(pool):
                saved = {part.name: {"seen": part.seen, "bad": part.bad} for part in parts}
                _write_json(folder / PROGRESS, {"format": FORMAT, "fingerprint": fingerprint, **saved})
                bar.advance(task, images)


def _finish(folder: Path, listing: Listing, parts: list[_Part], about: dict[str, Any]) -> None:
    """Labels, statistics and hashes; `meta.json` comes last and makes the folder a store."""
    for part in parts:
        _save(folder / f"{part.name}_labels.npy", part.labels(listing.classes))
    statistics = measure(np.load(folder / "train_images.npy", mmap_mode="r"))
    _save(folder / "mean.npy", statistics.mean)
    digests = {name: digest(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS}
    meta = about | {
        "format": FORMAT,
        "classes": listing.classes,
        "fingerprint": listing.fingerprint,
        "skipped": [*listing.foreign, *(part.files.names[index] for part in parts for index in part.bad)],
        "content_hash": _content_hash(listing.classes, digests),
        "digests": digests,
        "bytes": {name: (folder / f"{name}.npy").stat().st_size for name in ARRAYS},
        "pca_deviations": statistics.pca_deviations.tolist(),
        "pca_vectors": statistics.pca_vectors.tolist(),
        "channel_std": statistics.channel_std.tolist(),
    }
    _write_json(folder / META, meta | {"checksum": checksum(meta)})
    (folder / PROGRESS).unlink()


def digest(array: np.ndarray) -> str:
    """sha256 of an array's bytes."""
    flat, step, result = array.reshape(-1), 2**24, hashlib.sha256()
    for start in range(0, flat.size, step):
        result.update(flat[start : start + step].data)
    return result.hexdigest()


def checksum(meta: dict[str, Any]) -> str:
    """sha256 over what `meta.json` says, but for the checksum itself."""
    said = {key: value for key, value in meta.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _content_hash(classes: tuple[str, ...], digests: dict[str, str]) -> str:
    """sha256 over class names, pixels and labels: the same for the same images, wherever they lie."""
    parts = [*classes, *(digests[name] for name in ARRAYS if name != "mean")]
    return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        _sync(file)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    replace_file(path, json.dumps(content, indent=1).encode())


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
