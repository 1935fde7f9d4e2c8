"""Packed images: made once, kept as memory-mapped uint8 next to the data, checked each time they are opened."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from repro.config import DataConfig, Exif, Format, Source, Transparency
from repro.data.cache_folders import LOCK, first_writable, possible_places
from repro.data.image_arrays import ImageArray, as_squares
from repro.data.pack import FORMAT, META, array_names, checksum, digest, disk_errors, prepare
from repro.data.sources import Listing, bad_files, classes_out_of_order, list_images
from repro.data.statistics import measure
from repro.distributed import warn
from repro.errors import RunFailure, Unusable, UserError
from repro.text import counted

VERIFY_BELOW = 2**30  # bytes; larger stores are checked by their sizes only


@dataclass(frozen=True)
class Split:
    """Images (M, S, S, 3) uint8 and labels (N,) int64 of all of them or of those at `rows` (N,)."""

    images: ImageArray
    labels: np.ndarray
    rows: np.ndarray | None = None

    def subset(self, rows: np.ndarray) -> "Split":
        """The same images, of which only those at `rows` count; nothing is copied."""
        return Split(self.images, self.labels[rows], rows)

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Returns where in `images` the images with these indices lie."""
        return indices if self.rows is None else self.rows[indices]


@dataclass(frozen=True)
class Counts:
    """Counts of what a reader should know of the images; None in stores and records of before it was counted.

    Validation images that the training set holds too, pixel for pixel; classes named by numbers whose label is another
    number; images with an EXIF orientation other than upright; images with transparent pixels.
    """

    val_images_in_train: int | None = None
    classes_out_of_order: int | None = None
    exif_oriented: int | None = None
    transparent: int | None = None


@dataclass(frozen=True)
class ImageData:
    """A prepared data set. Statistics are of the training set, on the 0-255 scale.

    `mean` (S, S, 3) float32 is the mean image, `channel_std` (3,) each colour's standard deviation;
    `pca_deviations` (3,), largest first, and `pca_vectors` (3, 3), columns, are the principal components of the
    pixels' RGB values. `skipped` names the files left out (data.skip_bad).
    """

    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: np.ndarray
    pca_deviations: np.ndarray
    pca_vectors: np.ndarray
    channel_std: np.ndarray
    content_hash: str
    skipped: tuple[str, ...]
    counts: Counts = Counts()


def in_memory(train: Split, val: Split, classes: int, content_hash: str) -> ImageData:
    """A data set that no store keeps; its statistics are of all the images that `train` draws on."""
    return ImageData(
        train=train,
        val=val,
        classes=tuple(f"class_{number}" for number in range(classes)),
        **vars(measure(train.images)),
        content_hash=content_hash,
        skipped=(),
    )


class _Unusable(Exception):
    """Says why a store cannot be opened; empty where there is none yet."""


@dataclass(frozen=True)
class Opened:
    """A store that was opened: its folder, its size, images packed now (0 where it was there), and the seconds.

    `verified`: every byte was checked.
    """

    data: ImageData
    folder: Path
    bytes: int
    packed: int
    seconds: float
    verified: bool


Check = Callable[[Listing], object]


def open_data(config: DataConfig, before_packing: Check | None = None) -> ImageData:
    """Opens the packed images of a source, after preparing them where that has not been done.

    `before_packing` may refuse, by raising, what is not worth hours of it. Raises Unusable for a data set that is
    missing or has bad files, RunFailure for a full disk.
    """
    return open_store(config, before_packing=before_packing).data


def open_store(config: DataConfig, verify: bool = False, before_packing: Check | None = None) -> Opened:
    """Does as `open_data`, and says what was done; `verify` checks every byte, however large the store is."""
    with _refused():
        listing = list_images(config)
    name = f"{config.source.value}-{config.image_size}px{_variant(config)}"
    places = possible_places(config, listing.root, name)
    start = time.perf_counter()
    found = _first_usable(places, listing, config, verify)
    packed = 0
    if found is None:
        if before_packing is not None:
            before_packing(listing)
        folder = _choose(places)
        with _lock(folder), _refused():
            data, packed = _prepare_and_open(folder, listing, config, verify)
    else:
        folder, data = found
    size = sum(path.stat().st_size for path in folder.glob("*.npy"))
    return Opened(data, folder, size, packed, time.perf_counter() - start, verify)


@contextmanager
def _refused() -> Iterator[None]:
    """A UserError about the images is Unusable."""
    try:
        yield
    except UserError as error:
        raise Unusable(*error.args) from error


def _variant(config: DataConfig) -> str:
    """Says how the pixels differ from those that are made by default."""
    coded = f"-jpeg{config.jpeg_quality}" if config.format is Format.jpeg else ""
    turned = "-upright" if config.exif is Exif.rotate else ""
    painted = f"-on-{config.transparency.value}" if config.transparency is not Transparency.keep else ""
    return coded + turned + painted


def _first_usable(
    places: Sequence[Path], listing: Listing, config: DataConfig, verify: bool
) -> tuple[Path, ImageData] | None:
    for folder in places:
        with suppress(_Unusable):
            return folder, _open(folder, listing, config, verify)
    return None


def _choose(places: Sequence[Path]) -> Path:
    """Chooses where to prepare the images, and says so where that is not the first place."""
    chosen = first_writable(places)
    if chosen != places[0]:
        print(f"{places[0]} cannot be written: the packed images go to {chosen}", file=sys.stderr)
    return chosen


def _prepare_and_open(folder: Path, listing: Listing, config: DataConfig, verify: bool) -> tuple[ImageData, int]:
    try:
        return _open(folder, listing, config, verify), 0  # another process may have made it meanwhile
    except _Unusable as reason:
        if str(reason):
            print(f"{folder}: {reason}; preparing the images again", file=sys.stderr)
    packed = prepare(folder, listing, config)
    try:
        return _open(folder, listing, config), packed
    except _Unusable as reason:
        raise RunFailure(f"{folder}: {reason}, just after it was made: set data.cache to another disk") from None


def _open(folder: Path, listing: Listing, config: DataConfig, verify: bool = False) -> ImageData:
    meta = _read_meta(folder)
    if meta["fingerprint"] != listing.fingerprint:
        raise _Unusable("the images have changed since it was made")
    arrays = _arrays(folder, meta, array_names(config.format), verify)
    if meta["skipped"] and not config.skip_bad:
        raise bad_files(
            f"{folder} leaves out {len(meta['skipped'])} bad files: replace them, or set data.skip_bad=true",
            meta["skipped"],
        )
    counts = Counts(
        val_images_in_train=meta.get("val_images_in_train"),
        classes_out_of_order=classes_out_of_order(meta["classes"]),
        exif_oriented=meta.get("oriented"),
        transparent=meta.get("transparent"),
    )
    _warn_of(folder, counts, len(arrays["val_labels"]), config)
    train, val = (
        as_squares(arrays[f"{name}_images"], arrays.get(f"{name}_ends"), config.image_size) for name in ("train", "val")
    )
    return ImageData(
        train=Split(train, np.array(arrays["train_labels"])),
        val=Split(val, np.array(arrays["val_labels"])),
        classes=tuple(meta["classes"]),
        mean=np.array(arrays["mean"]),
        pca_deviations=np.array(meta["pca_deviations"]),
        pca_vectors=np.array(meta["pca_vectors"]),
        channel_std=np.array(meta["channel_std"]),
        content_hash=meta["content_hash"],
        skipped=tuple(meta["skipped"]),
        counts=counts,
    )


def _warn_of(folder: Path, counts: Counts, val_images: int, config: DataConfig) -> None:
    if counts.val_images_in_train:
        warn(
            f"{folder}: of {counted(val_images, 'validation image')} the training set holds"
            f" {counts.val_images_in_train:,} too, pixel for pixel, so errors come out too low: leave them in one only"
        )
    if config.source is not Source.imagefolder:  # what others did with the images of a benchmark stays as it is
        return
    if counts.exif_oriented and config.exif is Exif.keep:
        warn(
            f"{folder}: not upright as the file holds it (EXIF orientation), and taken so:"
            f" {counted(counts.exif_oriented, 'image')}; data.exif=rotate turns them"
        )
    if counts.transparent and config.transparency is Transparency.keep:
        warn(
            f"{folder}: with transparent pixels, which keep the colour stored beneath:"
            f" {counted(counts.transparent, 'image')}; data.transparency=white (grey, black) puts that colour behind"
        )


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / META).read_text())
    except FileNotFoundError:
        raise _Unusable("") from None
    except (OSError, ValueError) as error:
        raise _Unusable(f"{META} cannot be read ({error})") from None
    version = meta.get("format") if isinstance(meta, dict) else None
    if version != FORMAT:
        raise _Unusable(f"made by another version (format {version}, this one is {FORMAT})")
    if meta.get("checksum") != checksum(meta):
        raise _Unusable(f"{META} is damaged (its checksum is wrong)")
    return dict(meta)


def _arrays(folder: Path, meta: dict[str, Any], names: tuple[str, ...], verify: bool) -> dict[str, np.ndarray]:
    """The memory-mapped arrays, checked against the sizes and, where that is quick, the hashes of `meta.json`."""
    verify = verify or sum(meta["bytes"].values()) < VERIFY_BELOW
    arrays = {}
    for name in names:
        path = folder / f"{name}.npy"
        try:
            if not path.is_file():
                raise _Unusable(f"{path.name} is missing")
            if path.stat().st_size != meta["bytes"][name]:
                raise _Unusable(f"{path.name} has {path.stat().st_size} bytes instead of {meta['bytes'][name]}")
            arrays[name] = np.load(path, mmap_mode="r")
        except OSError as error:
            raise _Unusable(f"{path.name} cannot be read ({error.strerror or error})") from None
        except ValueError as error:
            raise _Unusable(f"{path.name} is damaged ({error})") from None
        if verify and digest(arrays[name]) != meta["digests"][name]:
            raise _Unusable(f"{path.name} is damaged (its hash has changed)")
    return arrays


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process prepares, others wait; the system frees the lock of a process that dies."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{folder}: waiting for another process that prepares these images", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
