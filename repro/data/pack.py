"""Preparation: all images into a few arrays on disk, block by block, so that a killed one goes on where it was."""

import hashlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from repro.config import DataConfig, Format
from repro.data.appendable import AppendableArray, sync
from repro.data.decode import decode
from repro.data.image_arrays import as_squares, encode
from repro.data.sources import Files, Listing, bad_files
from repro.data.statistics import measure
from repro.errors import RunFailure, UserError
from repro.files import is_file, replace_file
from repro.text import counted
from repro.threads import cores

FORMAT = 1  # of the folder's files; another one is prepared again
BLOCK_BYTES = 2**25  # pixels decoded, written and recorded at a time
ARRAYS = ("train_images", "train_labels", "val_images", "val_labels", "mean")
ENDS = ("train_ends", "val_ends")  # of the JPEG files in `train_images` and `val_images`
META, PROGRESS, BAD_FILES = "meta.json", "progress.json", "bad_files.txt"
SAMPLE = 32  # squares that tell the size of the rest


def array_names(encoding: Format) -> tuple[str, ...]:
    """The arrays of a store, one file each."""
    return ARRAYS if encoding is Format.raw else (*ARRAYS, *ENDS)


def prepare(folder: Path, listing: Listing, config: DataConfig) -> int:
    """Packs a data set into `folder`; what an earlier, interrupted call has written is kept. Returns images read now.

    Raises UserError naming every bad file (unless `skip_bad`), RunFailure where the disk is full or not writable.
    """
    with disk_errors(folder), warnings.catch_warnings():
        for text in ("Corrupt EXIF data", "Metadata Warning", "Truncated File Read"):
            warnings.filterwarnings("ignore", text)  # ILSVRC has some; the pixels are whole
        (folder / META).unlink(missing_ok=True)
        parts = _resume(folder, listing, config)
        images = sum(part.missing for part in parts)
        needed = _check_space(folder, parts)
        _pack(folder, listing.fingerprint, parts, f"{_what(config)} ({needed / 2**30:.3g} GiB)")
        bad = [f"{part.files.names[index]}: {reason}" for part in parts for index, reason in part.bad.items()]
        if bad and not config.skip_bad:
            path = folder / BAD_FILES
            replace_file(path, os.fsencode("\n".join([*bad, ""])))
            unread = f"{counted(len(bad), 'image')} cannot be read"
            raise bad_files(f"{unread}: replace what is bad, or set data.skip_bad=true ({path})", bad)
        _finish(folder, listing, parts, config)
    return images


def _what(config: DataConfig) -> str:
    coded = f" as JPEG of quality {config.jpeg_quality}" if config.format is Format.jpeg else ""
    return f"{config.source.value} at {config.image_size} pixels{coded}"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into RunFailure."""
    try:
        yield
    except OSError as error:
        remedy = "set data.cache to another folder"
        if error.errno in (ENOSPC, EDQUOT):
            remedy = f"free some space, or {remedy}; what is done is kept"
        in_the_way = [path for path in (folder, *folder.parents) if is_file(path)]
        reason = f"{in_the_way[0]} is a file" if in_the_way else error.strerror or str(error)
        raise RunFailure(f"{folder}: cannot write the packed images ({reason}): {remedy}") from None


class _Changed(Exception):
    """Says why an interrupted preparation cannot be gone on with."""


@dataclass
class _Part:
    """One split on its way into its files: images tried so far, and those of them that cannot be read, with reasons.

    `ends` says where the JPEG files in `images` end; None where the squares are kept as they are. `oriented` and
    `transparent` count images as `DecodedImage` says.
    """

    name: str
    files: Files
    config: DataConfig
    images: AppendableArray
    ends: AppendableArray | None
    seen: int = 0
    oriented: int = 0
    transparent: int = 0
    bad: dict[int, str] = field(default_factory=dict)

    @classmethod
    def new(cls, name: str, files: Files, folder: Path, config: DataConfig) -> "_Part":
        """One of which nothing is written yet."""
        path, size = folder / f"{name}_images.npy", config.image_size
        if config.format is Format.raw:
            return cls(name, files, config, AppendableArray(path, "|u1", (size, size, 3)), None)
        return cls(
            name,
            files,
            config,
            AppendableArray(path, "|u1", ()),
            AppendableArray(folder / f"{name}_ends.npy", "<i8", ()),
        )

    @property
    def missing(self) -> int:
        """Images not yet tried."""
        return len(self.files.names) - self.seen

    @property
    def arrays(self) -> list[AppendableArray]:
        """Lists the arrays on disk."""
        return [array for array in (self.images, self.ends) if array is not None]

    def progress(self) -> dict[str, Any]:
        """Returns what `restore` needs."""
        return {
            "seen": self.seen,
            "oriented": self.oriented,
            "transparent": self.transparent,
            "bad": {str(index): reason for index, reason in self.bad.items()},
            "arrays": [[array.rows, array.digest] for array in self.arrays],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to where an earlier process was. _Changed where its rows or the bad files are not as it left them.

        An interrupted preparation lies unfinished for as long as its user likes; a damaged row would become part of
        what the images are known by.
        """
        self.seen, self.oriented, self.transparent = (saved[key] for key in ("seen", "oriented", "transparent"))
        self.bad = {int(index): reason for index, reason in saved["bad"].items()}
        for array, (rows, digest) in zip(self.arrays, saved["arrays"], strict=True):
            if not array.restore(rows, digest):
                raise _Changed(f"{array.path.name} was damaged after the preparation was interrupted")
        for index in self.bad:
            if not isinstance(self._read(index), str):
                raise _Changed(f"{self.files.names[index]} could not be read, and now can")

    def append(self, pool: ThreadPoolExecutor) -> Iterator[int]:
        """Writes the images not yet seen behind the others; yields the length of each block once it is on disk."""
        block = max(1, BLOCK_BYTES // (self.config.image_size**2 * 3))
        while self.missing:
            indices = range(self.seen, min(self.seen + block, len(self.files.names)))
            images = dict(zip(indices, pool.map(self._read, indices), strict=True))
            self.bad |= {index: image for index, image in images.items() if isinstance(image, str)}
            good = [image for image in images.values() if isinstance(image, _Packed)]
            if self.ends is not None:
                ends = self.images.rows + np.cumsum([len(image.content) for image in good], dtype=np.int64)
                self.ends.append(ends.tobytes())
            self.images.append(b"".join(image.content for image in good))
            self.oriented += sum(image.oriented for image in good)
            self.transparent += sum(image.transparent for image in good)
            self.seen = indices.stop
            yield len(indices)
        for array in self.arrays:
            array.close()

    def labels(self, classes: tuple[str, ...]) -> np.ndarray:
        """Labels (N,) int64 of the rows. UserError where none of a class's images could be read."""
        labels = [label for index, label in enumerate(self.files.labels) if index not in self.bad]
        empty = set(range(len(classes))).difference(labels)
        if empty:
            raise UserError(f"{self.name}: no image of class {classes[min(empty)]} can be read; replace them")
        return np.array(labels, np.int64)

    def missing_bytes(self) -> int:
        """Computes what the images not yet tried will take; for JPEG files an estimate from some of them."""
        if self.ends is None:
            return self.missing * self.config.image_size**2 * 3
        sample = range(self.seen, len(self.files.names), max(1, self.missing // SAMPLE))
        sizes = [len(image.content) for image in map(self._read, sample) if isinstance(image, _Packed)]
        return round(self.missing * float(np.mean(sizes))) if sizes else 0

    def _read(self, index: int) -> "_Packed | str":
        """An image as it is written, or the reason why it cannot be read."""
        square = decode(self.files, index, self.config)
        if isinstance(square, str):
            return square
        pixels = square.pixels
        content = pixels.tobytes() if self.ends is None else encode(pixels, self.config.jpeg_quality)
        return _Packed(content, square.oriented, square.transparent)


class _Packed(NamedTuple):
    """The bytes that are written of an image, and what its file holds as `DecodedImage` says."""

    content: bytes
    oriented: bool
    transparent: bool


def _resume(folder: Path, listing: Listing, config: DataConfig) -> list[_Part]:
    """An interrupted preparation of the same files, if it can be trusted; otherwise a clean start."""
    splits = (("train", listing.train), ("val", listing.val))
    parts = [_Part.new(name, files, folder, config) for name, files in splits]
    try:
        saved = json.loads((folder / PROGRESS).read_bytes())
        same = (saved["format"], saved["fingerprint"]) == (FORMAT, listing.fingerprint)
        if same and saved["checksum"] == checksum(saved):
            for part in parts:
                part.restore(saved[part.name])
            return parts
    except _Changed as reason:
        print(f"{folder}: {reason}; starting again", file=sys.stderr)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # none, or not ours: start afresh
    for name in (PROGRESS, BAD_FILES, *(f"{array}.npy" for array in (*ARRAYS, *ENDS))):
        (folder / name).unlink(missing_ok=True)  # never emptied in place: another process may have it mapped
    return [_Part.new(name, files, folder, config) for name, files in splits]


def _check_space(folder: Path, parts: list[_Part]) -> int:
    needed, free = sum(part.missing_bytes() for part in parts), shutil.disk_usage(folder).free
    if needed > free:
        smaller = ", set data.format=jpeg" if parts[0].ends is None else ""
        raise RunFailure(
            f"{folder}: the packed images need {needed / 2**30:.3g} GiB and {free / 2**30:.3g} GiB are free:"
            f" free some space{smaller}, or set data.cache to a folder on another disk"
        )
    return needed


def _pack(folder: Path, fingerprint: str, parts: list[_Part], what: str) -> None:
    console = Console(stderr=True)
    total, done = sum(len(part.files.names) for part in parts), sum(part.seen for part in parts)
    going_on = f", going on after {done}" if done else ""
    print(f"Preparing {counted(total, 'image')} of {what} in {folder}, once{going_on}", file=sys.stderr)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    start, packed = time.perf_counter(), 0
    with (
        # Pillow and simplejpeg hold the interpreter's lock for a thirtieth of an image's time: processes gain nothing
        ThreadPoolExecutor(cores()) as pool,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("", total=total, completed=done, rate="")
        for part in parts:
            for images in part.append(pool):
                saved = {"format": FORMAT, "fingerprint": fingerprint}
                saved |= {part.name: part.progress() for part in parts}
                _write_json(folder / PROGRESS, saved | {"checksum": checksum(saved)})
                packed += images
                rate = packed / (time.perf_counter() - start)
                bar.update(task, advance=images, rate=f"{rate:.0f} images/s")


def _finish(folder: Path, listing: Listing, parts: list[_Part], config: DataConfig) -> None:
    """Labels, statistics and hashes; `meta.json` comes last and makes the folder a store."""
    for part in parts:
        _save(folder / f"{part.name}_labels.npy", part.labels(listing.classes))
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in array_names(config.format) if name != "mean"
    }
    train = as_squares(arrays["train_images"], arrays.get("train_ends"), config.image_size)
    statistics = measure(train)
    _save(folder / "mean.npy", statistics.mean)
    written = {array.path.stem: array.digest for part in parts for array in part.arrays}
    digests = {name: written.get(name) or digest(array) for name, array in arrays.items()}
    meta = {
        "source": config.source.value,
        "image_size": config.image_size,
        "format": FORMAT,
        "classes": listing.classes,
        "fingerprint": listing.fingerprint,
        "skipped": [*listing.foreign, *(part.files.names[index] for part in parts for index in part.bad)],
        "val_images_in_train": _in_both(arrays),
        "oriented": sum(part.oriented for part in parts),
        "transparent": sum(part.transparent for part in parts),
        "content_hash": _content_hash(listing.classes, digests),
        "digests": digests | {"mean": digest(statistics.mean)},
        "bytes": {name: (folder / f"{name}.npy").stat().st_size for name in array_names(config.format)},
        "pca_deviations": statistics.pca_deviations.tolist(),
        "pca_vectors": statistics.pca_vectors.tolist(),
        "channel_std": statistics.channel_std.tolist(),
    }
    _write_json(folder / META, meta | {"checksum": checksum(meta)})
    (folder / PROGRESS).unlink()


def _in_both(arrays: dict[str, np.ndarray]) -> int:
    """Counts the validation images that the training set holds too, pixel for pixel."""
    train = set(_of_images(arrays["train_images"], arrays.get("train_ends")))
    return sum(image in train for image in _of_images(arrays["val_images"], arrays.get("val_ends")))


def _of_images(images: np.ndarray, ends: np.ndarray | None) -> Iterator[bytes]:
    """A hash of each image's pixels, or of its JPEG file."""
    squares = images if ends is None else (images[start:end] for start, end in pairwise([0, *ends.tolist()]))
    return (hashlib.blake2b(square.data, digest_size=16).digest() for square in squares)


def digest(array: np.ndarray) -> str:
    """sha256 of an array's bytes."""
    flat, step, result = array.reshape(-1), 2**24, hashlib.sha256()
    for start in range(0, flat.size, step):
        result.update(flat[start : start + step].data)
    return result.hexdigest()


def checksum(content: dict[str, Any]) -> str:
    """sha256 over what `meta.json` or `progress.json` says, but for the checksum itself."""
    said = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _content_hash(classes: tuple[str, ...], digests: dict[str, str]) -> str:
    """sha256 over class names, pixels (or JPEG files) and labels: the same for the same images, wherever they lie."""
    parts = [*classes, *digests.values()]
    return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        sync(file)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    replace_file(path, json.dumps(content, indent=1).encode())
