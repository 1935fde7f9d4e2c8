"""The official archives of ILSVRC-2012, read as they are: an index says where in them each image lies.

The training archive holds one archive a class, `<wnid>.tar`; the validation archive holds all images, and the
development kit their classes: line i of its ground truth is the ILSVRC2012_ID of the i-th image by name, which
meta.mat translates to a WordNet id.
"""

import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from repro.errors import UserError
from repro.files import replace_file, writable

NAMES = TRAIN, VAL, DEVKIT = (
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
)
META, GROUND_TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass
class Members:
    """Images of one split by class, then name, as `<split>/<class>/<file>`; offsets and sizes in bytes."""

    archive: Path
    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The WordNet id of each image."""
        return [name.split("/")[1] for name in self.names]

    def read(self, index: int) -> bytes:
        """The bytes of an image."""
        with self.archive.open("rb") as file:
            file.seek(self.offsets[index])
            return file.read(self.sizes[index])


def are_in(folder: Path) -> bool:
    """Tells whether the folder holds at least one of the two archives of images."""
    return any((folder / name).is_file() for name in (TRAIN, VAL))


def read_index(folder: Path, places: Sequence[Path]) -> tuple[Members, Members]:
    """Training and validation images; the index is kept in one of the files `places`, the first that can be written.

    For reading through the archives takes minutes.

    Raises UserError, naming the archive, where one is missing, truncated, or does not fit the others.
    """
    for name in NAMES:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: download it from https://image-net.org; all three are needed")
    stamp = [[(folder / name).stat().st_size, (folder / name).stat().st_mtime_ns] for name in NAMES]
    for kept in places:
        if (splits := _load(folder, kept, stamp)) is not None:
            return splits
    print(f"Reading through the archives in {folder}, once", file=sys.stderr)
    splits = _train(folder / TRAIN), _val(folder / VAL, folder / DEVKIT)
    _check(folder, *splits)
    with suppress(OSError, StopIteration):  # without it the next command reads through them again
        _save(next(kept for kept in places if writable(kept.parent)), stamp, splits)
    return splits


def _train(path: Path) -> Members:
    found = []
    with _reading(path), tarfile.open(path, "r:") as outer:
        for inner in _files(outer, path, ".tar"):
            name = Path(inner.name).name.removesuffix(".tar")
            with _reading(path, inner.name), tarfile.open(fileobj=outer.extractfile(inner), mode="r:") as images:
                found += [
                    (f"train/{name}/{Path(image.name).name}", inner.offset_data + image.offset_data, image.size)
                    for image in _files(images, path / inner.name, ".jpeg", inner.size)
                ]
    return _sorted(path, found)


def _val(path: Path, devkit: Path) -> Members:
    with _reading(path), tarfile.open(path, "r:") as images:
        found = sorted((Path(one.name).name, one.offset_data, one.size) for one in _files(images, path, ".jpeg"))
    classes = _val_classes(devkit)
    if len(classes) != len(found):
        raise UserError(
            f"{path} holds {len(found)} images, but {devkit} names the classes of {len(classes)}: download both again"
        )
    pairs = zip(classes, found, strict=True)
    return _sorted(path, [(f"val/{wnid}/{name}", offset, size) for wnid, (name, offset, size) in pairs])


def _files(archive: tarfile.TarFile, path: Path, ending: str, size: int | None = None) -> list[tarfile.TarInfo]:
    """The plain files of an archive at `path`, of so many bytes; hidden ones are passed over.

    Raises ReadError where one reaches beyond its end, UserError where one's name has another ending.
    """
    size = path.stat().st_size if size is None else size
    members = [member for member in archive if member.isfile() and not Path(member.name).name.startswith(".")]
    for member in members:
        if not member.name.lower().endswith(ending):
            raise UserError(
                f"{path} holds {member.name}, which the original does not, and which is no {ending} file: download it"
                " again"
            )
    beyond = [member.name for member in members if member.offset_data + member.size > size]
    if beyond or not members:
        raise tarfile.ReadError(f"unexpected end of data in {beyond[0]}" if beyond else "no files in it")
    return members


def _sorted(path: Path, found: list[tuple[str, int, int]]) -> Members:
    """Orders by class, then name, as in class folders."""
    names, offsets, sizes = zip(*sorted(found, key=lambda one: one[0].split("/")), strict=True)
    return Members(path, list(names), list(offsets), list(sizes))


def _val_classes(devkit: Path) -> list[str]:
    """The WordNet id of each validation image, in the order of their names."""
    from scipy.io import loadmat

    with _reading(devkit), tarfile.open(devkit) as kit:
        meta = loadmat(_member(kit, META), squeeze_me=True)["synsets"]  # type: ignore[arg-type]  # the stubs forget streams
        numbers, names = (np.atleast_1d(meta[key]).tolist() for key in ("ILSVRC2012_ID", "WNID"))
        wnids = {int(number): str(name) for number, name in zip(numbers, names, strict=True)}
        truth = [int(line) for line in _member(kit, GROUND_TRUTH).read().split()]
    if unknown := sorted(set(truth).difference(wnids)):
        raise UserError(
            f"{devkit}: {GROUND_TRUTH} names a class {unknown[0]}, which is none of the {len(wnids)} of {META}:"
            " download it again"
        )
    return [wnids[number] for number in truth]


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = next((member for member in archive.getmembers() if member.name.endswith(f"/{name}")), None)
    file = archive.extractfile(member) if member is not None else None
    if file is None:
        raise tarfile.ReadError(f"there is no {name} in it")
    return io.BytesIO(file.read())


def _check(folder: Path, train: Members, val: Members) -> None:
    known, used = set(train.classes), set(val.classes)
    if known != used:
        raise UserError(
            f"{folder / TRAIN} holds {len(known)} classes and {folder / VAL} images of {len(used)}, {len(known & used)}"
            " of them the same: download again what is not whole"
        )


@contextmanager
def _reading(path: Path, member: str = "") -> Iterator[None]:
    """Turns what a damaged archive, or one within it, brings about into UserError."""
    try:
        yield
    except Exception as error:  # tarfile, zlib and SciPy each have their own
        if isinstance(error, UserError) or getattr(error, "filename", None):  # a file that cannot be opened at all
            raise
        if not path.stat().st_size:
            raise UserError(f"{path} is empty: download it again") from error
        where = f"{member}: " if member else ""
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise UserError(f"{path} is truncated or damaged ({where}{reason}): download it again") from error


def _save(kept: Path, stamp: list[list[int]], splits: tuple[Members, Members]) -> None:
    arrays = {"stamp": np.array(stamp)}
    for name, part in zip(("train", "val"), splits, strict=True):
        arrays |= {f"{name}_{key}": np.array(getattr(part, key)) for key in ("names", "offsets", "sizes")}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace_file(kept, content.getvalue())


def _load(folder: Path, kept: Path, stamp: list[list[int]]) -> tuple[Members, Members] | None:
    """The index of these very archives, None where there is none."""
    try:
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if arrays["stamp"].tolist() != stamp:
                return None
            train, val = (
                Members(folder / archive, *(arrays[f"{name}_{key}"].tolist() for key in ("names", "offsets", "sizes")))
                for name, archive in (("train", TRAIN), ("val", VAL))
            )
            return train, val
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
