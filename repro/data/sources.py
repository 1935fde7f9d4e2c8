"""The sources of images: folders of classes, official archives, CIFAR-10's download, or the package itself."""

import hashlib
import io
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import ELOOP, ENOENT
from pathlib import Path

import numpy as np
from PIL import Image

from repro.command import expanded
from repro.config import DataConfig, Source
from repro.data import archives, embedded
from repro.data.cache_folders import possible_places
from repro.distributed import warn
from repro.errors import UserError
from repro.text import counted

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's list
JPEG_TOO = (".jfif", ".jpe", ".jif")
OTHER_IMAGES = (".jp2", ".j2k", ".gif", ".avif", ".heic", ".heif", ".jxl", ".ico", ".psd", ".tga")
SHOWN = 20  # bad files named on the screen

DOWNLOADS = {
    Source.imagenette: "download https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz (fast.ai), unpack it"
    " and rename imagenette2-320 to {folder}",
    Source.cifar10: "give data.root a folder in which it can be downloaded, or save the images of"
    " https://www.cs.toronto.edu/~kriz/cifar.html as {folder}/train/<class>/*.png and {folder}/test/<class>/*.png",
    Source.ilsvrc2012: f"register at https://image-net.org and download {', '.join(archives.NAMES)} to {{folder}}, or"
    " unpack them as {folder}/train/<wnid>/*.JPEG and {folder}/val/<wnid>/*.JPEG",
    Source.ilsvrc2010: "register at https://image-net.org, download the training and validation images of ILSVRC-2010"
    " and unpack them as {folder}/train/<wnid>/*.JPEG and {folder}/val/<wnid>/*.JPEG (its tar files are not read as"
    " they are)",
    Source.imagefolder: "lay your images out as {folder}/train/<class>/* and {folder}/val/<class>/*",
}


@dataclass(frozen=True)
class Files:
    """The images of one split, in a fixed order: a name (relative path) and a label each, and how to open one."""

    names: list[str]
    labels: list[int]
    open: Callable[[int], Image.Image]


@dataclass(frozen=True)
class Listing:
    """A data set before its images are read.

    `root` is the folder that holds it (none: the package made it), `fingerprint` changes with any file's name or
    size, and `foreign` names files left out because they are no images (only with data.skip_bad).
    """

    root: Path | None
    classes: tuple[str, ...]
    train: Files
    val: Files
    fingerprint: str
    foreign: tuple[str, ...] = ()


def list_images(config: DataConfig) -> Listing:
    """Lists the images of the configured source.

    Raises UserError, naming the path and the remedy, where the data set is missing or not laid out as it must be.
    """
    try:
        listing = _embedded() if config.source is Source.embedded else _on_disk(config)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}): change its permissions") from None
    if config.classes not in (None, len(listing.classes)):
        has = counted(len(listing.classes), "class", "classes")
        raise UserError(f"data.classes={config.classes}: {config.source.value} has {has}")
    return listing


def class_count(config: DataConfig) -> int:
    """Classes of the configured source, before its images are packed. UserError as in `list_images`."""
    return config.classes or len(list_images(config).classes)


def bad_files(summary: str, names: list[str]) -> UserError:
    """The error that names bad files, one a line, the first twenty of them."""
    more = [f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return UserError(summary, *(f"  {name}" for name in names[:SHOWN]), *more)


def _embedded() -> Listing:
    def split(name: str) -> Files:
        labels = embedded.labels(name)
        names = [f"{name}/{embedded.CLASSES[label]}/{index}" for index, label in enumerate(labels)]
        return Files(names, labels, lambda index: Image.fromarray(embedded.make_image(name, index)))

    return Listing(None, embedded.CLASSES, split("train"), split("val"), embedded.fingerprint())


def _on_disk(config: DataConfig) -> Listing:
    root = _root(config)
    folder = root / config.source.value
    if config.source is Source.imagefolder and not folder.exists() and (root / "train").is_dir():
        folder = root
    if config.source is Source.cifar10 and not folder.exists():
        return _cifar10_download(root)
    remedy = DOWNLOADS[config.source].format(folder=folder)
    if config.source is Source.ilsvrc2012 and archives.are_in(folder) and not (folder / "train").is_dir():
        return _official_archives(config, root, folder)
    if not folder.is_dir():
        raise UserError(f"{config.source.value} is not in {root}: {remedy}; or name another folder by data.root=")
    val = "test" if config.source is Source.cifar10 and (folder / "test").is_dir() else "val"
    for split in ("train", val):
        if not (folder / split).is_dir():
            raise UserError(f"{folder / split} is missing: {remedy}")
    return _class_folders(root, folder, val, config.skip_bad)


def _root(config: DataConfig) -> Path:
    given = config.root or os.environ.get("REPRO_DATA")
    how = "set data.root (or the environment variable REPRO_DATA) to the folder that holds the data sets"
    if not given:
        remedy = DOWNLOADS[config.source].format(folder=f"<data.root>/{config.source.value}")
        raise UserError(f"data.source={config.source.value} needs images: {how}; {remedy}")
    root = expanded(given, "data.root")
    name = f"{'data.root' if config.root else 'REPRO_DATA'}={given}"
    if not root.exists():
        raise UserError(f"{name}: no such folder; {how}")
    if not root.is_dir():
        raise UserError(f"{name}: is a file, not a folder; {how}")
    if not any(root.iterdir()) and config.source is not Source.cifar10:
        remedy = DOWNLOADS[config.source].format(folder=root / config.source.value)
        raise UserError(f"{name}: is empty; {remedy}")
    return root


@dataclass
class _Found:
    """The content of the class folders of one split; sizes are bytes, `foreign` says why a file cannot be an image."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)


def _class_folders(root: Path, folder: Path, val: str, skip_bad: bool) -> Listing:
    classes = {split: _class_names(folder / split) for split in ("train", val)}
    _check_same(folder, classes)
    _warn_of_order(folder, classes["train"])
    found = [_find(folder, split, names) for split, names in classes.items()]
    foreign = {name: reason for part in found for name, reason in part.foreign.items()}
    if foreign and not skip_bad:
        raise bad_files(
            f"{folder}: {counted(len(foreign), 'file')} cannot be used: mend what is bad, or set data.skip_bad=true",
            [f"{name}: {reason}" for name, reason in foreign.items()],
        )
    _warn_of_nested(folder, found)
    for split in classes:
        _warn_of_stray(folder / split)
    train, held_out = (Files(part.names, part.labels, _opener(folder, part.names)) for part in found)
    return Listing(root, tuple(classes["train"]), train, held_out, _fingerprint(found, list(foreign)), tuple(foreign))


def _fingerprint(parts: Sequence["_Found | archives.Members"], foreign: Sequence[str] = ()) -> str:
    seen = [f"{name}\t{size}" for part in parts for name, size in zip(part.names, part.sizes, strict=True)]
    return hashlib.sha256(os.fsencode("\n".join([*seen, *foreign]))).hexdigest()


def _class_names(folder: Path) -> list[str]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists():  # in both splits it would be a class less, and nothing told it
            raise UserError(f"{path} is a link that leads nowhere (to {path.readlink()}): mend it, or remove it")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"{folder} has {len(names)} class folders: at least two are needed, as {folder}/<class>/*")
    return names


def classes_out_of_order(names: Sequence[str]) -> int:
    """Counts, of classes all named by numbers, those whose label is not their place among the numbers."""
    if not all(name.isdecimal() for name in names):
        return 0
    return sum(name != other for name, other in zip(names, sorted(names, key=int), strict=True))


def _warn_of_order(folder: Path, names: list[str]) -> None:
    """Somebody who names folders 0 to 11 may expect the names to be the labels."""
    if moved := classes_out_of_order(names):
        start = ", ".join(f"{name}: {label}" for label, name in enumerate(names[:4]))
        warn(
            f"{folder}: folders named by numbers get labels in the order of their text, as in torchvision's ImageFolder"
            f" ({start}, ...), which is another for {moved} of {len(names)}: write 00, 01, ... for the order of the"
            " numbers"
        )


def _check_same(folder: Path, classes: dict[str, list[str]]) -> None:
    train, val = classes
    for split, other in ((val, train), (train, val)):
        for name in sorted(set(classes[other]).difference(classes[split])):
            raise UserError(
                f"{folder / split / name} is missing: the class is in {other}; add its images, or remove"
                f" {folder / other / name}"
            )


def _find(folder: Path, split: str, classes: list[str]) -> _Found:
    """Files in a fixed order: by class, folder and name."""
    found = _Found()
    for label, name in enumerate(classes):
        place = folder / split / name
        looked_at = {inner: _size_or_reason(f"{place}/{inner}") for inner in _files_below(place)}
        images = {inner: size for inner, size in looked_at.items() if isinstance(size, int)}
        foreign = {inner: reason for inner, reason in looked_at.items() if isinstance(reason, str)}
        if not images:
            example = "".join(f" ({inner}: {reason})" for inner, reason in list(foreign.items())[:1])
            raise UserError(f"{place} holds no images{example}: add some, or remove the class from both splits")
        found.names += [f"{split}/{name}/{inner}" for inner in images]
        found.labels += [label] * len(images)
        found.sizes += images.values()
        found.foreign |= {f"{split}/{name}/{inner}": reason for inner, reason in foreign.items()}
    return found


def _files_below(place: Path) -> Iterator[str]:
    """Paths relative to `place` of all files in it and in its folders, in the order of torchvision's ImageFolder.

    Hidden ones are passed over, as globs do. Raises UserError for a folder that is linked into itself.
    """
    found = []
    for base, folders, files in os.walk(place, onerror=_raise, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        above = [parent for parent in Path(base).parents if parent.is_relative_to(place)]
        if any(parent.samefile(base) for parent in above):
            raise UserError(f"{base} is a link to a folder that it lies in: remove it")
        found.append((base, files))
    for base, files in sorted(found):
        inner = base.removeprefix(str(place)).removeprefix("/")
        yield from (f"{inner}/{name}" if inner else name for name in sorted(files) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _size_or_reason(path: str) -> int | str:
    """An image file's size in bytes, or why it cannot be one."""
    try:
        status = os.stat(path)  # noqa: PTH116  # of a million names, the faster way
    except OSError as error:
        if error.errno not in (ENOENT, ELOOP):
            raise
        return "a link that leads nowhere" if error.errno == ENOENT else "a link that leads back to itself"
    if not stat.S_ISREG(status.st_mode):
        return "neither a file nor a folder"
    ending = os.path.splitext(path)[1].lower()  # noqa: PTH122  # as above
    if ending in EXTENSIONS:
        return status.st_size
    if ending in JPEG_TOO:
        return f"{ending} is not read: rename it to .jpg, which it is"
    if ending in OTHER_IMAGES:
        return f"{ending} images are not read: convert it to .png or .jpg"
    return f"no image by its name, which would end in one of {' '.join(EXTENSIONS)}"


def _warn_of_stray(folder: Path) -> None:
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    stray = [path.name for path in files if path.suffix.lower() in EXTENSIONS]
    if stray:
        warn(f"{folder}: in no class's folder, and left out: {counted(len(stray), 'image')} ({min(stray)})")


def _warn_of_nested(folder: Path, found: list[_Found]) -> None:
    nested = [name for part in found for name in part.names if name.count("/") > 2]
    if nested:
        warn(
            f"{folder}: folders within a class's folder hold {counted(len(nested), 'image')} of that class, as in"
            f" torchvision's ImageFolder: {nested[0]}{', ...' if len(nested) > 1 else ''}"
        )


def _opener(folder: Path, names: list[str]) -> Callable[[int], Image.Image]:
    return lambda index: Image.open(folder / names[index])


def _official_archives(config: DataConfig, root: Path, folder: Path) -> Listing:
    """The same listing as of the same images in class folders, so that both open the same packed store."""
    places = possible_places(config, root, f"{config.source.value}-archives.npz")
    train, val = archives.read_index(folder, places)
    classes = tuple(sorted(set(train.classes)))
    label = {name: number for number, name in enumerate(classes)}
    files = [Files(part.names, [label[name] for name in part.classes], _archive_opener(part)) for part in (train, val)]
    return Listing(root, classes, files[0], files[1], _fingerprint([train, val]))


def _archive_opener(part: archives.Members) -> Callable[[int], Image.Image]:
    return lambda index: Image.open(io.BytesIO(part.read(index)))


def _cifar10_download(root: Path) -> Listing:
    """The original arrays, through torchvision, where the machine has internet."""
    from torchvision.datasets import CIFAR10

    target = root / "cifar10-original"
    if not (target / CIFAR10.base_folder).exists():
        print(f"CIFAR-10 is not in {root}: downloading it (170 MB)", file=sys.stderr)
    try:
        with _timeout(seconds=20):
            train, val = (CIFAR10(target, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; torchvision raises RuntimeError
        remedy = DOWNLOADS[Source.cifar10].format(folder=root / "cifar10")
        raise UserError(f"cifar10 is not in {root} and cannot be downloaded ({error}): {remedy}") from None
    splits = []
    for name, dataset in (("train", train), ("test", val)):
        names = [f"{name}/{index}" for index in range(len(dataset))]
        splits.append(Files(names, list(dataset.targets), _array_opener(dataset.data)))
    return Listing(root, tuple(train.classes), splits[0], splits[1], fingerprint="torchvision CIFAR10")


def _array_opener(images: np.ndarray) -> Callable[[int], Image.Image]:
    return lambda index: Image.fromarray(images[index])


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its addresses without a time limit; a machine behind a silent firewall would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
